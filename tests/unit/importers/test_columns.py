"""Columns as other programs write them: blanks, large numbers, columns without a type, extensions, folders' names."""

import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ada2i.audit.audit import audit
from ada2i.data.manifest import open_features, read_shard
from ada2i.errors import DataError, InputError
from ada2i.importers.join import import_joined
from ada2i.importers.table import import_table
from tests.unit.data.tables import Columns, corpus, write, written

LENGTHS = [("train", 2), ("train", 3), ("train", 1), ("dev", 1), ("test", 2)]


def imported(source: Path, root: Path, **options: Any) -> pa.Table:
    features = open_features(import_table(str(source), str(root), **options))
    return pa.concat_tables([read_shard(features, entry) for entry in features.manifest.shards])


def refused(tmp_path: Path, source: Path, message: str) -> None:
    with pytest.raises(DataError, match=message):
        import_table(str(source), str(tmp_path / "root"))
    assert written(tmp_path / "root") == []


# --- blanks and empty names ---


@pytest.mark.parametrize("column", ["label", "dialogue_id", "split"])
@pytest.mark.parametrize("empty", ["", "  ", "\t\n"])
def test_an_empty_name_is_absent(tmp_path: Path, column: str, empty: str) -> None:
    columns = corpus() | {"label": ["a", "b"] * 4}
    columns[column][3] = empty
    refused(
        tmp_path, write(tmp_path / "x.parquet", columns), rf"`{column}` .* must hold a value in every row, .* row 3"
    )
    assert audit(str(tmp_path / "x.parquet")).null_keys == {column: 1}


def test_blanks_around_names_do_not_count(tmp_path: Path) -> None:
    clean = corpus() | {
        "label": ["a", "b"] * 4,
        "speaker": ["Ann", None] * 4,
        "utterance_id": [f"u{n}" for n in range(8)],
    }
    spaced = {name: [f" {v}\t" if isinstance(v, str) else v for v in values] for name, values in clean.items()}
    spaced["speaker"] = [" Ann", "  "] * 4
    texts = {"text": [" as it was written "] * 8}
    one = imported(write(tmp_path / "a" / "x.parquet", clean | texts), tmp_path / "root")
    other = imported(write(tmp_path / "b" / "x.parquet", spaced | texts), tmp_path / "root", labels=(" a", "b "))
    assert one.equals(other)
    assert set(one["text"].to_pylist()) == {" as it was written "}


def test_keys_of_vectors_are_read_without_blanks(tmp_path: Path) -> None:
    columns = corpus()
    table = {name: columns[name] for name in ("split", "utterance_index", "text_feat")}
    table["dialogue_id"] = [f"{name} " for name in columns["dialogue_id"]]
    base, text = write(tmp_path / "base.parquet", columns), write(tmp_path / "text.parquet", table)
    assert import_joined(str(base), str(tmp_path), tables={"text": str(text)})


# --- numbers ---

LARGE = 1234567890123456789


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint64(), pa.dictionary(pa.int32(), pa.int64())])
@pytest.mark.parametrize("column", ["dialogue_id", "utterance_id", "speaker"])
def test_integers_keep_every_digit(tmp_path: Path, column: str, kind: pa.DataType) -> None:
    columns = corpus()
    columns[column] = [LARGE + 100 * int(name[1:]) for name in columns["dialogue_id"]]
    rows = imported(write(tmp_path / "x.parquet", columns, {column: kind}), tmp_path / "root")
    assert set(rows[column].to_pylist()) == {str(LARGE + 100 * number) for number in range(4)}


@pytest.mark.parametrize(("value", "found"), [(float(2**53), "holds 9007199254740992"), (1e18, ""), (0.5, "holds 0.5")])
@pytest.mark.parametrize("column", ["dialogue_id", "utterance_index", "speaker"])
def test_floats_that_stand_for_several_integers_are_refused(
    tmp_path: Path, column: str, value: float, found: str
) -> None:
    columns = corpus() | {"speaker": list(range(8))}
    columns[column] = [float(n) for n in range(7)] + [value]
    refused(tmp_path, write(tmp_path / "x.parquet", columns), rf"Column `{column}` .* below 2\^53, but row 7.* {found}")


def test_whole_floats_are_integers(tmp_path: Path) -> None:
    columns = corpus() | {"speaker": [1.0, float("nan")] * 4}
    columns["dialogue_id"] = [float(name[1:]) for name in columns["dialogue_id"]]
    columns["utterance_index"] = [float(number) for number in columns["utterance_index"]]
    rows = imported(write(tmp_path / "x.parquet", columns, {"speaker": pa.float32()}), tmp_path / "root")
    assert set(rows["dialogue_id"].to_pylist()) == {"0", "1", "2", "3"}
    assert set(rows["speaker"].to_pylist()) == {"1", None}


@pytest.mark.parametrize("column", ["dialogue_id", "split", "text_feat", "utterance_index"])
def test_a_wrong_type_in_a_table_of_vectors_is_named(tmp_path: Path, column: str) -> None:
    base = write(tmp_path / "base.parquet", corpus())
    table = corpus() | {column: [True] * 8}
    text = write(tmp_path / "text.parquet", table)
    with pytest.raises(DataError, match=rf"Column `{column}` of .*text.parquet must hold .* holds bool"):
        import_joined(str(base), str(tmp_path / "root"), tables={"text": str(text)})


# --- times ---

YEAR_10000 = 253_402_300_800


@pytest.mark.parametrize(
    ("kind", "times"),
    [
        (pa.timestamp("s"), [YEAR_10000, 5, 4]),
        (pa.timestamp("ms", "Pacific/Kiritimati"), [YEAR_10000 * 1000, 5, 4]),
        (pa.timestamp("us", "UTC"), [2**63 - 1, -(2**63) + 1, 4]),
        (pa.timestamp("ns"), [2**63 - 1, 5, 4]),
        (pa.date32(), [4_000_000, -4_000_000, 4]),
        (pa.date64(), [YEAR_10000 * 86_400_000 // 86_400, 0, 0]),
    ],
)
def test_a_time_in_any_year_is_a_number(tmp_path: Path, kind: pa.DataType, times: list[int]) -> None:
    columns = corpus(LENGTHS)
    integers = pa.int32() if pa.types.is_date32(kind) else pa.int64()
    names = [int(name[1:]) for name in columns["dialogue_id"]]
    recorded = pa.array([times[name] if name < 3 else None for name in names], integers).cast(kind)
    table = pq.read_table(write(tmp_path / "x.parquet", columns)).append_column("recorded_at", recorded)
    pq.write_table(table, tmp_path / "x.parquet")
    rows = imported(tmp_path / "x.parquet", tmp_path / "root")
    assert {r["dialogue_id"] for r in rows.to_pylist() if r["split"] == "gate"} == {"d0"}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.timestamp("s"), 2**52),
        (pa.timestamp("ms"), -(2**63) + 1),
        (pa.timestamp("s"), -9223372036855),  # its microseconds are 1 second beyond int64
        (pa.timestamp("s"), 9223372036855),
        (pa.date32(), 2**31 - 1),
        (pa.timestamp("s", "Asia/Tokyo"), 10**14),
    ],
)
def test_a_time_that_does_not_fit_is_refused_by_row(tmp_path: Path, kind: pa.DataType, value: int) -> None:
    integers = pa.int32() if pa.types.is_date32(kind) else pa.int64()
    recorded = pa.array([None, 5, 4, value] + [1] * 4, integers).cast(kind)
    table = pq.read_table(write(tmp_path / "x.parquet", corpus())).append_column("recorded_at", recorded)
    pq.write_table(table, tmp_path / "x.parquet")
    refused(tmp_path, tmp_path / "x.parquet", r"`recorded_at` .* must hold times within .* but row 3")


# --- columns without a type, and files without rows ---


def halves(folder: Path, change: Callable[[Columns], Columns], lengths: list[tuple[str, int]] = LENGTHS) -> Path:
    """Write a corpus as two files, one of which is changed."""
    columns = corpus(lengths) | {"speaker": ["A"] * 9, "text": ["t"] * 9}
    first = {name: values[:5] for name, values in columns.items()}
    write(folder / "b.parquet", {name: values[5:] for name, values in columns.items()})
    write(folder / "a.parquet", change(first))
    return folder


@pytest.mark.parametrize("column", ["text_feat", "audio_feat", "speaker", "text"])
def test_a_column_that_is_null_in_one_file(tmp_path: Path, column: str) -> None:
    rows = imported(halves(tmp_path / "x", lambda first: first | {column: [None] * 5}), tmp_path / "root")
    assert rows[column].null_count == 5
    assert audit(str(tmp_path / "x")).splits["train"].utterances == 6


@pytest.mark.parametrize("modality", ["text", "audio"])
def test_bare_vectors_that_are_null_in_one_file(tmp_path: Path, modality: str) -> None:
    bare = {name.removesuffix("_feat"): values for name, values in corpus(LENGTHS).items()}
    write(tmp_path / "x" / "b.parquet", {name: values[5:] for name, values in bare.items()})
    write(tmp_path / "x" / "a.parquet", {name: values[:5] for name, values in bare.items()} | {modality: [None] * 5})
    assert imported(tmp_path / "x", tmp_path / "root")[f"{modality}_feat"].null_count == 5


def test_a_null_key_is_refused_by_row(tmp_path: Path) -> None:
    for column in ("dialogue_id", "utterance_index", "split"):
        folder = halves(tmp_path / column, lambda first, column=column: first | {column: [None] * 5})  # type: ignore[misc]
        refused(tmp_path, folder, rf"Column `{column}` of .*a.parquet must hold a value in every row, but row 0")


def test_files_without_rows_count_for_nothing(tmp_path: Path) -> None:
    whole = imported(write(tmp_path / "x.parquet", corpus()), tmp_path / "root")
    write(tmp_path / "y" / "x.parquet", corpus())
    write(tmp_path / "y" / "empty.parquet", {name: [] for name in ("dialogue_id", "label", "something")})
    assert imported(tmp_path / "y", tmp_path / "root").equals(whole)
    assert audit(str(tmp_path / "y")).absent_columns == ()
    write(tmp_path / "z" / "empty.parquet", {"dialogue_id": []})
    refused(tmp_path / "z", tmp_path / "z", r"must hold at least one utterance, but has no row in 1 file\(s\)")


# --- extensions ---


def test_extensions_over_lists_and_text(tmp_path: Path) -> None:
    columns = corpus()
    ids = [uuid.UUID(int=row) for row in range(8)]
    table = pq.read_table(write(tmp_path / "x.parquet", columns | {"utterance_id": [str(each) for each in ids]}))
    plain = imported(tmp_path / "x.parquet", tmp_path / "root")
    for name, width in (("text_feat", 3), ("audio_feat", 2)):
        storage = table[name].combine_chunks().cast(pa.list_(pa.float32(), width))
        tensors: Any = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), (width,)), storage)
        table = table.set_column(table.schema.get_field_index(name), name, tensors)
    binary = pa.array([each.bytes for each in ids], pa.binary(16))
    place = table.schema.get_field_index("utterance_id")
    table = table.set_column(place, "utterance_id", pa.ExtensionArray.from_storage(pa.uuid(), binary))
    pq.write_table(table, tmp_path / "x.parquet")
    assert imported(tmp_path / "x.parquet", tmp_path / "root").equals(plain)
    assert set(audit(str(tmp_path / "x.parquet")).modalities) == {"text", "audio"}


def test_tensors_of_higher_rank_are_refused(tmp_path: Path) -> None:
    table = pq.read_table(write(tmp_path / "x.parquet", corpus()))
    square = pa.array([[1.0] * 4] * 8, pa.list_(pa.float32(), 4))
    tensors: Any = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), (2, 2)), square)
    pq.write_table(table.append_column("visual_feat", tensors), tmp_path / "x.parquet")
    refused(tmp_path, tmp_path / "x.parquet", "`visual_feat` .* must hold lists of numbers, .*fixed_shape_tensor")


# --- folders' names ---


@pytest.mark.parametrize("column", ["split", "label", "dialogue_id", "speaker"])
@pytest.mark.parametrize("names", [False, True])
def test_a_column_in_the_names_of_folders(tmp_path: Path, column: str, names: bool) -> None:
    columns = corpus() | {"speaker": ["A B", "ü%"] * 4}
    if names:
        columns["label"] = [f"class {label}" for label in columns["label"]]
    table = pq.read_table(write(tmp_path / "x.parquet", columns))
    pq.write_to_dataset(table, tmp_path / "parts" / "x", partition_cols=[column])
    whole = imported(tmp_path / "x.parquet", tmp_path / "root")
    assert imported(tmp_path / "parts" / "x", tmp_path / "root").equals(whole)
    found = audit(str(tmp_path / "parts" / "x"))
    assert (found.absent_columns, set(found.splits)) == ((), {"train", "dev", "test"})


@pytest.mark.parametrize("number", ["99999999999999999999", "9223372036854775808"])
def test_an_index_of_a_folder_that_is_too_large_is_refused(tmp_path: Path, number: str) -> None:
    table = pq.read_table(write(tmp_path / "x.parquet", corpus())).drop_columns(["utterance_index"])
    (tmp_path / "parts" / f"utterance_index={number}").mkdir(parents=True)
    pq.write_table(table, tmp_path / "parts" / f"utterance_index={number}" / "x.parquet")
    with pytest.raises(DataError, match=r"`utterance_index` of .* must hold integers"):
        imported(tmp_path / "parts", tmp_path / "root")


def test_labels_of_folders_that_are_too_large_for_integers_are_names(tmp_path: Path) -> None:
    columns = corpus()
    columns["label"] = [("9223372036854775808", "99999999999999999999")[label] for label in columns["label"]]
    table = pq.read_table(write(tmp_path / "x.parquet", columns))
    pq.write_to_dataset(table, tmp_path / "parts" / "x", partition_cols=["label"])
    whole = imported(tmp_path / "x.parquet", tmp_path / "root")
    assert imported(tmp_path / "parts" / "x", tmp_path / "root").equals(whole)


def test_days_in_the_names_of_folders_cut_the_gate(tmp_path: Path) -> None:
    columns = corpus(LENGTHS)
    for day, row in enumerate((0, 2, 5, 6, 7)):
        rows = [place for place, name in enumerate(columns["dialogue_id"]) if name == columns["dialogue_id"][row]]
        part = {name: [values[place] for place in rows] for name, values in columns.items()}
        write(tmp_path / "x" / f"recorded_at=2026-01-{9 - day:02}" / "x.parquet", part)
    rows_ = imported(tmp_path / "x", tmp_path / "root").to_pylist()
    assert {row["dialogue_id"] for row in rows_ if row["split"] == "gate"} == {"d0"}


def test_other_columns_of_a_table_of_vectors_do_not_matter(tmp_path: Path) -> None:
    text = write(tmp_path / "text.parquet", corpus() | {"label": [[True]] * 8, "recorded_at": ["today"] * 8})
    base = write(tmp_path / "base.parquet", corpus())
    assert import_joined(str(base), str(tmp_path / "root"), tables={"text": str(text)})


def test_a_file_s_own_column_is_stronger_than_its_folder(tmp_path: Path) -> None:
    source = write(tmp_path / "speaker=B" / "split=test" / "x.parquet", corpus())
    rows = imported(source, tmp_path / "root")
    assert set(rows["split"].to_pylist()) == {"train", "dev", "test"}
    assert set(rows["speaker"].to_pylist()) == {"B"}


# --- names of datasets ---

NAMES = [
    "対話",
    "通話",
    "звонки",
    "Ü",
    "ünï",
    "n",
    "C++",
    "c#",
    "c",
    "calls-対話",
    "calls-通話",
    "calls",
    "a/b",
    "a\\b",
    "🙂",
]


def test_different_names_stay_different(tmp_path: Path) -> None:
    source = write(tmp_path / "x.parquet", corpus())
    found = [open_features(import_table(str(source), str(tmp_path), dataset=name)).manifest.dataset for name in NAMES]
    assert len(set(found)) == len(NAMES)
    assert {"n", "c", "calls"} < set(found)


def test_case_and_blanks_are_brought_to_one_spelling(tmp_path: Path) -> None:
    source = write(tmp_path / "My  Calls.parquet", corpus())
    assert open_features(import_table(str(source), str(tmp_path))).manifest.dataset == "my-calls"


# --- other names, and one column per number ---


def foreign(columns: Columns) -> Columns:
    """The same table with names and wide columns as other programs write them."""
    names = {"dialogue_id": "conversation_id", "utterance_index": "turn", "label": "Emotion", "split": "subset"}
    wide = {f"text_{n}": [row[n] for row in columns["text_feat"]] for n in (2, 0, 1)}
    audio = {f"opensmile{n:02}": [row and row[n] for row in columns["audio_feat"]] for n in (0, 1)}
    return {theirs: columns[ours] for ours, theirs in names.items()} | wide | audio | {"text_len": [3] * 8}


OPTIONS: dict[str, Any] = {
    "rename": ["conversation_id=dialogue_id", "turn=utterance_index", "Emotion=label", "subset=split"],
    "pack": ["text_*", "opensmile*=audio_feat"],
}


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl", ".feather"])
def test_other_names_and_wide_columns_give_the_same_set(tmp_path: Path, suffix: str) -> None:
    plain = import_table(str(write(tmp_path / "x.parquet", corpus())), str(tmp_path / "root"))
    (tmp_path / "other").mkdir()
    frame, path = pd.DataFrame(foreign(corpus())), str(tmp_path / "other" / f"x{suffix}")
    {
        ".parquet": frame.to_parquet,
        ".csv": partial(frame.to_csv, index=False),
        ".jsonl": partial(frame.to_json, orient="records", lines=True),
        ".feather": frame.to_feather,
    }[suffix](path)
    assert import_table(path, str(tmp_path / "root"), **OPTIONS) == plain
    assert (
        import_table(
            path, str(tmp_path / "root"), **OPTIONS | {"rename": dict(text.split("=") for text in OPTIONS["rename"])}
        )
        == plain
    )
    unused = open_features(plain).manifest.unused
    assert unused == {}


def test_a_swap_of_names(tmp_path: Path) -> None:
    columns = corpus()
    columns["text_feat"], columns["audio_feat"] = columns["audio_feat"], columns["text_feat"]
    source = str(write(tmp_path / "other" / "x.parquet", columns))
    swapped = import_table(source, str(tmp_path / "root"), rename=["text_feat=audio_feat", "audio_feat=text_feat"])
    assert swapped == import_table(str(write(tmp_path / "x.parquet", corpus())), str(tmp_path / "root"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rename": ["nothing=label"]}, r"must have the column `nothing`, which is to be renamed, but has only `"),
        (
            {},
            r"must have the column `dialogue_id`.*takes `--rename 'conversation_id=dialogue_id' "
            r"--rename 'turn=utterance_index' --rename 'Emotion=label' --rename 'subset=split' --pack 'text_\*' --pack",
        ),
        ({"rename": ["turn"]}, r"`--rename` takes OLD=NEW, but got 'turn'"),
        (
            {"rename": ["turn=label", "Emotion=label"]},
            r"`--rename` must give each column one name, but repeats E",
        ),
        (OPTIONS | {"rename": [*OPTIONS["rename"], "text_len=label"]}, r"but repeats text_len=label"),
        (OPTIONS | {"pack": ["emb_*"]}, r"`--pack` takes a pattern that begins with text, audio or visual"),
        (OPTIONS | {"pack": ["emb_*=text"]}, r"`--pack` takes a pattern"),
        (OPTIONS | {"pack": ["video_*=visual_feat"]}, r"must have columns that match 'video_\*' and end with a number"),
        (OPTIONS | {"pack": ["text_[02]", "opensmile*"]}, r"`--pack` takes a pattern that begins with"),
        (OPTIONS | {"pack": ["text_[02]"]}, r"without a gap in their numbers .* lacks number 1 between 0 and 2"),
        (OPTIONS | {"pack": ["text_*", "opensmile*=text_feat"]}, r"`--pack` must fill `text_feat` once"),
        (OPTIONS | {"pack": []}, r"must hold a vector column, .*packs wide columns: `--pack 'text_\*' --pack 'opens"),
    ],
)
def test_changes_that_do_not_fit(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    source = str(write(tmp_path / "x.parquet", foreign(corpus())))
    with pytest.raises(InputError, match=message):
        import_table(source, str(tmp_path / "root"), **options)
    assert written(tmp_path / "root") == []


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("conversation_id", "dialogue_id"),
        ("Dialogue_ID", "dialogue_id"),
        ("videoId", "dialogue_id"),
        ("turn", "utterance_index"),
        ("utterance_idx", "utterance_index"),
        ("Emotion", "label"),
        ("splits", "split"),
    ],
)
def test_the_likely_column_is_named(tmp_path: Path, theirs: str, ours: str) -> None:
    columns = {theirs if name == ours else name: values for name, values in corpus().items()}
    source = write(tmp_path / "x.parquet", columns)
    refused(tmp_path, source, rf"the column `{ours}`, .*`ada2i import table` takes `--rename '{theirs}={ours}'`")


def test_a_packed_column_that_holds_no_number(tmp_path: Path) -> None:
    bad = foreign(corpus()) | {"text_1": ["0.5"] * 4 + ["x"] * 4}
    pd.DataFrame(bad).to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(DataError, match=r"Column `text_1` of .* must hold numbers, .*'x'"):
        import_table(str(tmp_path / "x.csv"), str(tmp_path / "root"), **OPTIONS)
    gap = foreign(corpus()) | {"text_1": [0.5] * 4 + [None] * 4}
    with pytest.raises(DataError, match=r"must hold finite float32 numbers, but row 4 .* at position 1"):
        import_table(str(write(tmp_path / "y.parquet", gap)), str(tmp_path / "root"), **OPTIONS)
