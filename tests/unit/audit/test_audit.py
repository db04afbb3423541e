"""Planted defects are found, exactly, and nothing else is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ada2i.audit.audit import audit, audit_source, blocking, check_codes
from ada2i.audit.blocks import Block, Source, table_source
from ada2i.audit.findings import CODES
from ada2i.audit.gate import gate
from ada2i.audit.records import AuditReport
from ada2i.audit.thresholds import AuditThresholds
from ada2i.data.manifest import open_features
from ada2i.data.shards import write_features
from ada2i.errors import ConfigError, DataError, IntegrityError
from ada2i.importers.demo import write_demo_corpus
from ada2i.importers.table import import_table
from ada2i.records import Finding
from tests.unit.data.tables import WIDTHS, Columns, shard_table, write

LENGTHS = {"train": 20, "dev": 10, "test": 10}  # dialogues of two utterances
TRAIN, DEV, TEST = range(40), range(40, 60), range(60, 80)  # rows


def clean(seed: int = 0) -> Columns:
    """Columns of a table in which an audit finds nothing: two classes, two modalities, one speaker per dialogue."""
    random = np.random.RandomState(seed)
    dialogues = [(split, f"{split}{d}") for split, number in LENGTHS.items() for d in range(number)]
    rows = [(split, name, index) for split, name in dialogues for index in (0, 1)]
    return {
        "dialogue_id": [name for _, name, _ in rows],
        "utterance_index": [index for _, _, index in rows],
        "label": [("calm", "cross")[index] for _, _, index in rows],
        "split": [split for split, _, _ in rows],
        "speaker": [f"speaker of {name}" for _, name, _ in rows],
        "text": [f"{name} says {index}" for _, name, index in rows],
        "text_feat": random.standard_normal((len(rows), 3)).tolist(),
        "audio_feat": random.standard_normal((len(rows), 2)).tolist(),
    }


def audited(tmp_path: Path, columns: Columns, **metadata: str) -> AuditReport:
    types: dict[str, pa.DataType] = {m: pa.list_(pa.float64()) for m in ("text_feat", "audio_feat") if m in columns}
    return audit(str(write(tmp_path / "x.parquet", columns, types, **metadata)))


def short(finding: Finding) -> tuple[str, str, int, str | None, str | None]:
    return finding.code, finding.severity, finding.count, finding.split, finding.modality


def put(columns: Columns, column: str, rows: Any, value: Any) -> None:
    for row in rows:
        columns[column][row] = value


def copy(columns: Columns, column: str, source: int, target: int) -> None:
    columns[column][target] = columns[column][source]


def test_a_clean_table_has_no_finding(tmp_path: Path) -> None:
    report = audited(tmp_path, clean(), dataset="toy")
    assert report.findings == ()
    assert (report.kind, report.dataset, report.classes) == ("table", "toy", ("calm", "cross"))
    train = report.splits["train"]
    assert (train.utterances, train.dialogues, train.speakers, train.unnamed) == (40, 20, 20, 0)
    assert train.classes == {"calm": 20, "cross": 20}
    assert train.lengths is not None
    assert (train.lengths.shortest, train.lengths.mean, train.lengths.longest) == (2, 2.0, 2)
    assert list(report.splits) == ["train", "dev", "test"]
    assert report.probed


def test_statistics_are_those_of_the_numbers(tmp_path: Path) -> None:
    columns = clean()
    columns["audio_feat"][0] = [float("nan"), 1e4]
    found = audited(tmp_path, columns).modalities["audio"].splits["train"]
    flat = np.array([columns["audio_feat"][row] for row in TRAIN], np.float32).astype(np.float64)
    flat = flat[np.isfinite(flat)]
    expected = [flat.mean(), flat.std(), flat.min(), flat.max()]
    assert [found.mean, found.sd, found.low, found.high] == pytest.approx(expected, rel=1e-5)


def without(column: str) -> Callable[[Columns], Any]:
    return lambda columns: columns.pop(column)


def shorten_dev(columns: Columns) -> None:
    for values in columns.values():
        del values[58:60]


def non_finite(columns: Columns) -> None:
    for row, value in ((3, float("nan")), (50, float("inf")), (70, float("-inf"))):
        columns["audio_feat"][row] = [1.0, value]


def one_dialogue_twice(columns: Columns) -> None:
    for column in columns:
        if column != "split":
            for place in (0, 1):
                copy(columns, column, place, 60 + place)


def same_ids(columns: Columns) -> None:
    columns["dialogue_id"] = [name.replace("test", "train") for name in columns["dialogue_id"]]


def copies_of_text(columns: Columns) -> None:
    copy(columns, "text_feat", 0, 60)
    copy(columns, "text_feat", 1, 61)
    columns["text"][61] = f" {columns['text'][1].upper()}  "  # the same transcript: no copy


def label_of(columns: Columns, rows: Any, label: str) -> None:
    put(columns, "label", rows, label)


PLANTED: list[tuple[Callable[[Columns], Any], list[tuple[str, str, int, str | None, str | None]]]] = [
    (without("label"), [("missing-columns", "error", 1, None, None)]),
    (without("utterance_index"), [("missing-columns", "error", 1, None, None)]),
    (lambda c: put(c, "label", (3, 5), " "), [("null-keys", "error", 2, None, None)]),
    (lambda c: put(c, "split", DEV, "holdout"), [
        ("unknown-split", "error", 20, "holdout", None),
        ("dev-from-train", "info", 1, "dev", None),
    ]),
    (lambda c: put(c, "split", TEST, "dev"), [("absent-split", "error", 1, "test", None)]),
    (lambda c: put(c, "split", DEV, "train"), [("dev-from-train", "info", 1, "dev", None)]),
    (lambda c: put(c, "audio_feat", (4,), [1.0]), [("mixed-widths", "error", 1, None, "audio")]),
    (non_finite, [("non-finite", "error", 3, None, "audio")]),
    (lambda c: put(c, "text_feat", (4,), [None, 1.0, 2.0]), [("non-finite", "error", 1, None, "text")]),
    (one_dialogue_twice, [
        ("dialogue-overlap", "error", 1, "test", None),
        ("cross-split-copies", "error", 2, "test", "audio"),
        ("speaker-overlap", "warning", 1, "test", None),
        ("duplicate-texts", "info", 2, "test", None),
    ]),
    (same_ids, [("shared-dialogue-ids", "info", 10, "test", None)]),
    (lambda c: copy(c, "audio_feat", 0, 50), [("cross-split-copies", "warning", 1, "dev", "audio")]),
    (copies_of_text, [
        ("cross-split-copies", "warning", 1, "test", "text"),
        ("duplicate-texts", "info", 1, "test", None),
    ]),
    (lambda c: put(c, "audio_feat", range(40, 51), None), [("missing-vectors", "error", 11, "dev", "audio")]),
    (lambda c: put(c, "audio_feat", range(60, 70), None), [("missing-vectors", "warning", 10, "test", "audio")]),
    (lambda c: put(c, "audio_feat", (0,), None), [("missing-vectors", "info", 1, "train", "audio")]),
    (lambda c: put(c, "audio_feat", (0, 1, 60), [0.0, -0.0]), [
        ("zero-vectors", "warning", 2, "train", "audio"),
        ("zero-vectors", "warning", 1, "test", "audio"),
    ]),
    (lambda c: put(c, "label", TRAIN, "calm"), [("absent-class", "error", 1, "train", None)]),
    (lambda c: put(c, "label", TEST, "calm"), [("absent-class", "warning", 1, "test", None)]),
    (lambda c: [c["text_feat"][row].__setitem__(1, 7.0) for row in range(80)], [
        ("constant-columns", "warning", 1, None, "text")
    ]),
    (lambda c: copy(c, "audio_feat", 0, 1), [("duplicate-vectors", "warning", 1, "train", "audio")]),
    (lambda c: put(c, "text", (0, 41, 42, 43, 44, 45), "Yes"), [("duplicate-texts", "warning", 5, "dev", None)]),
    (lambda c: put(c, "speaker", (0, 41, 42), "Ross"), [("speaker-overlap", "warning", 1, "dev", None)]),
    (lambda c: put(c, "speaker", range(80), None), []),
    (lambda c: put(c, "speaker", range(80), "A"), [
        ("speaker-overlap", "info", 1, "dev", None),
        ("speaker-overlap", "info", 1, "test", None),
        ("speaker-overlap", "info", 1, "test", None),
    ]),
    (shorten_dev, [("tiny-split", "warning", 9, "dev", None)]),
]  # fmt: skip


@pytest.mark.parametrize(("plant", "expected"), PLANTED)
def test_a_planted_defect_is_found_and_nothing_else(
    tmp_path: Path, plant: Callable[[Columns], Any], expected: list[tuple[str, str, int, str | None, str | None]]
) -> None:
    columns = clean()
    plant(columns)
    assert [short(finding) for finding in audited(tmp_path, columns).findings] == expected


def test_every_code_is_planted_somewhere() -> None:
    planted = {code for _, expected in PLANTED for code, *_ in expected}
    assert planted | {"train-fitted-features"} == set(CODES)


def test_where_numbers_are_not_finite(tmp_path: Path) -> None:
    columns = clean()
    non_finite(columns)
    report = audited(tmp_path, columns)
    audio = report.modalities["audio"]
    assert (audio.non_finite_rows, audio.non_finite_columns) == ((3, 50, 70), {1: 3})
    assert report.findings[0].message == "3 rows have -inf, inf, nan in column 1 (rows, counted from 0: 3, 50, 70)."


def test_vectors_fitted_to_train_labels_are_hinted_at(tmp_path: Path) -> None:
    random, columns = np.random.RandomState(1), clean()
    for name in columns:  # enough rows to separate a gap from chance
        columns[name] = columns[name] * 6
    columns["dialogue_id"] = [f"{name}-{place // 80}" for place, name in enumerate(columns["dialogue_id"])]
    columns["audio_feat"] = random.standard_normal((480, 2)).tolist()
    columns["text_feat"] = random.standard_normal((480, 3)).tolist()
    columns["text"] = [f"text {row}" for row in range(480)]
    for row, (label, split) in enumerate(zip(columns["label"], columns["split"], strict=True)):
        if split == "train":
            columns["text_feat"][row][0] += 8.0 * (label == "cross")
    report = audited(tmp_path, columns)
    assert [short(finding) for finding in report.findings] == [("train-fitted-features", "warning", 1, "train", "text")]
    scores = report.modalities["text"].probe
    assert scores is not None
    assert scores.train == scores.held_out == 1.0
    assert (scores.train_utterances, scores.test_utterances) == (240, 120)


def fitted_or_honest(*, fitted: bool, gain: float, seed: int = 2) -> Columns:
    """A table whose text vectors predict train by a fixed direction, and test as well unless ``fitted``."""
    random, columns = np.random.RandomState(seed), clean()
    for name in columns:
        columns[name] = columns[name] * 12
    columns["dialogue_id"] = [f"{name}-{place // 80}" for place, name in enumerate(columns["dialogue_id"])]
    columns["text"] = [f"text {row}" for row in range(960)]
    columns["audio_feat"] = random.standard_normal((960, 2)).tolist()
    text = random.standard_normal((960, 3))
    for row, (label, split) in enumerate(zip(columns["label"], columns["split"], strict=True)):
        text[row, 0] += 3.0 if fitted and split == "test" else 6.0 * (label == "cross")  # the encoder is undecided
        text[row] *= gain if split == "test" else 1.0
    columns["text_feat"] = text.tolist()
    return columns


@pytest.mark.parametrize("gain", [0.5, 0.65, 3.0])
def test_a_modality_is_not_left_out_since_test_has_another_scale(tmp_path: Path, gain: float) -> None:
    assert left_out(tmp_path, fitted_or_honest(fitted=False, gain=gain)) == ()


@pytest.mark.parametrize("gain", [0.5, 1.0, 3.0])
def test_a_fitted_modality_is_left_out_at_any_scale(tmp_path: Path, gain: float) -> None:
    assert left_out(tmp_path, fitted_or_honest(fitted=True, gain=gain)) == ("text",)


@pytest.mark.parametrize("fitted", [False, True])
def test_what_decides_about_training_reads_no_label_of_test(tmp_path: Path, fitted: bool) -> None:
    columns = fitted_or_honest(fitted=fitted, gain=1.0)
    records = []
    for name, change in (("true", lambda label: label), ("swapped", {"calm": "cross", "cross": "calm"}.get)):
        pairs = zip(columns["label"], columns["split"], strict=True)
        labels = [change(label) if split == "test" else label for label, split in pairs]
        features = import_table(str(write(tmp_path / f"{name}.parquet", {**columns, "label": labels})), str(tmp_path))
        records.append(gate(open_features(features), modalities=("text", "audio"), leave_out_fitted=True))
    assert records[0] == records[1]


def left_out(folder: Path, columns: Columns) -> tuple[str, ...]:
    features = open_features(import_table(str(write(folder / "x.parquet", columns)), str(folder)))
    return gate(features, modalities=("text", "audio"), leave_out_fitted=True).left_out


@pytest.mark.parametrize("limit", [{"probe_width": 2}, {"probe_rows": 79}])
def test_large_sources_are_not_probed(tmp_path: Path, limit: dict[str, int]) -> None:
    source = table_source(str(write(tmp_path / "x.parquet", clean())))
    probes = audit_source(source, thresholds=AuditThresholds(**limit)).modalities
    assert probes["text"].probe is None
    assert (probes["audio"].probe is None) == ("probe_rows" in limit)


# --- the same rows in another order, in other files, as a set ---


def whole(seed: int) -> Columns:
    """A table with defects, of whole numbers, whose sums are exact in any order."""
    columns = clean(seed)
    for name in ("text_feat", "audio_feat"):
        columns[name] = [[float(round(4 * value)) for value in vector] for vector in columns[name]]
    put(columns, "audio_feat", (0, 41, 60), None)
    put(columns, "text", (2, 50), "yes")
    return columns


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(80)), seed=st.integers(0, 9))
def test_order_of_rows_changes_nothing(tmp_path: Path, order: list[int], seed: int) -> None:
    columns = whole(seed)
    plain = audited(tmp_path, columns)
    assert plain.findings
    assert audited(tmp_path, {name: [values[row] for row in order] for name, values in columns.items()}) == plain


def test_a_table_in_files_is_audited_like_one(tmp_path: Path) -> None:
    columns = whole(0)
    plain = audited(tmp_path, columns)
    for name, rows in (("a", slice(0, 33)), ("b", slice(33, 33)), ("c", slice(33, 80))):
        names = ("dialogue_id", "split", "label", "speaker", "text")
        types: dict[str, pa.DataType] = {**dict.fromkeys(names, pa.string()), "utterance_index": pa.int64()}
        types |= dict.fromkeys(("text_feat", "audio_feat"), pa.list_(pa.float32()))
        write(tmp_path / "parts" / f"{name}.parquet", {k: v[rows] for k, v in columns.items()}, types)
    parts = audit(str(tmp_path / "parts"))
    assert parts.model_copy(update={"location": plain.location}) == plain


def test_a_set_is_audited_like_its_table(tmp_path: Path) -> None:
    source = write(tmp_path / "x.parquet", whole(0), dataset="toy")
    table, features = audit(str(source)), audit(import_table(str(source), str(tmp_path / "root")))
    assert (features.kind, len(features.fingerprint or "")) == ("feature set", 32)
    same = {"location", "kind", "fingerprint"}
    assert features.model_dump(exclude=same) == table.model_dump(exclude=same)


def test_a_report_survives_storage(tmp_path: Path) -> None:
    report = audited(tmp_path, whole(0))
    assert AuditReport.model_validate_json(report.to_json()) == report


# --- odd tables ---


def test_labels_and_vectors_of_many_types(tmp_path: Path) -> None:
    columns = clean()
    plain = audited(tmp_path, columns, label_names="0=calm,1=cross").model_dump(exclude={"location"})
    columns["label"] = [float(label == "cross") for label in columns["label"]]
    columns["text"] = columns.pop("text_feat")
    columns["audio"] = columns.pop("audio_feat")
    columns["split"] = [{"dev": "Validation"}.get(split, split) for split in columns["split"]]
    types = {"split": pa.dictionary(pa.int8(), pa.string()), "audio": pa.list_(pa.float32(), 2)}
    found = audit(str(write(tmp_path / "y.parquet", columns, types, label_names="0=calm,1=cross")))
    assert found.classes == ("calm", "cross")
    assert found.findings == ()
    assert found.model_dump()["modalities"] == plain["modalities"]


def test_nothing_to_audit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must be a file \(.parquet, .*\) or a folder with such files, but has none"):
        audit(str(tmp_path / "none"))
    empty = Source("here", None, lambda: iter(()))
    with pytest.raises(DataError, match="here must hold at least one utterance, but has no row"):
        audit_source(empty)


def test_a_block_knows_what_it_lacks(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", {"text_feat": [[1.0], [2.0]]})
    (block,) = list(table_source(str(path)).blocks())
    assert isinstance(block, Block)
    assert block.absent == ("dialogue_id", "utterance_index", "label", "split")
    assert block.columns["split"].to_pylist() == ["all", "all"]
    assert audit(str(path)).splits["all"].utterances == 2


# --- the gate ---


def stored(root: Path, table: pa.Table, labels: tuple[str, ...] = ("a", "b")) -> str:
    encoders = dict.fromkeys(WIDTHS, "random")
    return write_features(
        str(root), table, dataset="toy", synthetic=True, labels=labels, encoders=encoders, dev_rule=None, source="test"
    )


def spoilt(table: pa.Table) -> pa.Table:
    """The table with NaN in the audio vector of its first row."""
    place = table.schema.get_field_index("audio_feat")
    values = [[float("nan"), 1.0], *table["audio_feat"].to_pylist()[1:]]
    return table.set_column(place, table.schema.field(place), pa.array(values, table.schema.field(place).type))


DIALOGUES = [("train", "a", 9), ("train", "b", 9), ("dev", "c", 9), ("test", "d", 9)]


def test_the_gate_refuses_and_names_the_code(tmp_path: Path) -> None:
    features = open_features(stored(tmp_path, spoilt(shard_table(DIALOGUES))))
    with pytest.raises(
        DataError, match=r"must pass the audit, but has\n  non-finite: 1 row .*\n.*`--allow non-finite`"
    ):
        gate(features, modalities=["text", "audio"])


def test_the_gate_lets_pass_what_is_allowed_or_not_used(tmp_path: Path) -> None:
    features = open_features(stored(tmp_path, spoilt(shard_table(DIALOGUES))))
    record = gate(features, modalities=["text", "audio"], allow=("non-finite",))
    assert record.allowed == ("non-finite",)
    assert short(record.findings[0]) == ("non-finite", "error", 1, None, "audio")
    assert {finding.modality for finding in gate(features, modalities=["text"]).findings} <= {None, "text"}


def test_the_gate_checks_digests(tmp_path: Path) -> None:
    uri = stored(tmp_path, shard_table(DIALOGUES))
    part = Path(uri.removeprefix("file://")) / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match=r"must hold the .* bytes with SHA-256"):
        gate(open_features(uri), modalities=["text"])


def test_unknown_codes_are_refused() -> None:
    check_codes(CODES)
    with pytest.raises(
        ConfigError, match=r"'nonfinite' is not one\. Known codes are missing-columns, .*dev-from-train\."
    ):
        check_codes(["non-finite", "nonfinite"])


def test_the_demo_passes_with_natural_warnings_only(tmp_path: Path) -> None:
    report = audit(write_demo_corpus(str(tmp_path)))
    assert {f.code for f in report.findings if f.severity != "info"} == {"duplicate-texts"}  # its sentences are drawn
    assert report.synthetic


# --- published data ---


@pytest.mark.shared
def test_mosi_as_published(tmp_path: Path, shared_data: Path) -> None:
    report = audit(str(shared_data / "mosi"))
    counts = {split: (found.dialogues, found.utterances) for split, found in report.splits.items()}
    assert counts == {"train": (62, 1447), "test": (31, 752)}
    assert {split: found.classes for split, found in report.splits.items()} == {
        "train": {"negative": 738, "non-negative": 709},
        "test": {"negative": 285, "non-negative": 467},
    }
    assert [short(finding) for finding in report.findings] == [
        ("constant-columns", "warning", 32, None, "visual"),
        ("train-fitted-features", "warning", 1, "train", "text"),
        ("train-fitted-features", "warning", 1, "train", "visual"),
        ("duplicate-vectors", "info", 3, "train", "visual"),
        ("dev-from-train", "info", 1, "dev", None),
    ]
    assert set(report.modalities["visual"].constant_columns.values()) == {0.0}
    probes = {name: modality.probe for name, modality in report.modalities.items()}
    assert all(probes.values())
    scores = {name: (found.train, found.test) for name, found in probes.items() if found}
    assert scores["text"] == pytest.approx((0.98, 0.76), abs=0.015)
    assert scores["visual"] == pytest.approx((0.92, 0.53), abs=0.015)
    features = open_features(import_table(str(shared_data / "mosi"), str(tmp_path)))
    record = gate(features, modalities=["text", "audio", "visual"])
    assert "error" not in {finding.severity for finding in record.findings}


@pytest.mark.shared
def test_mosei_with_infinities(shared_data: Path) -> None:
    report = audit(str(shared_data / "mosei" / "video_level_val_test.parquet"))
    audio = report.modalities["audio"]
    assert (audio.non_finite_columns, audio.non_finite_kinds) == ({7: 653}, ("-inf",))
    assert {split: found.utterances for split, found in report.splits.items()} == {"dev": 264, "test": 658}
    assert [finding.code for finding in blocking(report.findings)] == ["missing-columns", "absent-split", "non-finite"]


@pytest.mark.shared
def test_honest_text_vectors_are_not_hinted_at(tmp_path: Path, shared_data: Path) -> None:
    import pyarrow.parquet as pq

    keys = ["split", "dialogue_id", "utterance_index"]
    rows = pq.read_table(shared_data / "mosi", columns=[*keys, "label"])
    vectors = pq.read_table(shared_data / "derived" / "mosi_minilm384.parquet", columns=[*keys, "text_feat"])
    kinds = {"split": pa.string(), "dialogue_id": pa.string(), "utterance_index": pa.int64()}
    order = [pa.table({k: t[k].cast(kinds[k]) for k in keys}).to_pylist() for t in (rows, vectors)]
    places = {tuple(key.values()): place for place, key in enumerate(order[1])}
    taken = vectors["text_feat"].combine_chunks().take(pa.array([places[tuple(key.values())] for key in order[0]]))
    pq.write_table(rows.append_column("text_feat", taken), tmp_path / "x.parquet")
    report = audit(str(tmp_path / "x.parquet"))
    assert report.modalities["text"].probe is not None
    assert "train-fitted-features" not in {finding.code for finding in report.findings}


@pytest.mark.parametrize("share", [0.25, 0.7, 0.9])
def test_a_modality_is_not_left_out_since_test_has_other_shares_of_classes(tmp_path: Path, share: float) -> None:
    random, columns = np.random.RandomState(4), fitted_or_honest(fitted=False, gain=1.0)
    rows = [row for row, split in enumerate(columns["split"]) if split == "test"]
    for row in rows:
        label = "cross" if random.random_sample() < share else "calm"
        text = random.standard_normal(3)
        text[0] += 6.0 * (label == "cross")
        columns["label"][row], columns["text_feat"][row] = label, text.tolist()
    assert left_out(tmp_path, columns) == ()
