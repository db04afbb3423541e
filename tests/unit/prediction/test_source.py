"""Tables to predict: with or without labels and splits, in any order; checked before anything starts."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from ada2i.data.manifest import FeatureSet
from ada2i.data.schema import by_appearance
from ada2i.errors import DataError
from ada2i.prediction import source
from ada2i.prediction.request import PredictSpec, prepare
from tests.unit.data.tables import written
from tests.unit.prediction.tiny import contents, demo, manifest_of, registered, run, table_of, write_rows


@pytest.fixture
def features(root: str, monkeypatch: pytest.MonkeyPatch) -> FeatureSet:
    found = demo(root, monkeypatch)
    registered(root, found.info())
    return found


def test_an_unlabelled_table_is_predicted_as_the_features_are(root: str, features: FeatureSet, tmp_path: Path) -> None:
    write_rows(tmp_path / "new.parquet", features, without=("label", "split"))
    expected, found = table_of(run(root, features.uri)), table_of(run(root, str(tmp_path / "new.parquet")))
    for name in ("dialogue_id", "utterance_index", "label"):
        assert found[name].to_pylist() == expected[name].to_pylist()
    np.testing.assert_allclose(found["votes"].to_numpy(), expected["votes"].to_numpy(), rtol=1e-4, atol=1e-5)
    assert found["true_label"].null_count == found["split"].null_count == found.num_rows
    uri = run(root, str(tmp_path / "new.parquet"), out=str(tmp_path / "out"))
    assert manifest_of(uri).scores == ()


def test_rows_in_any_order_and_in_several_files(root: str, features: FeatureSet, tmp_path: Path) -> None:
    table = write_rows(tmp_path / "sorted" / "a.parquet", features)
    mixed = table.take(np.random.RandomState(2).permutation(table.num_rows))
    (tmp_path / "mixed").mkdir()
    pq.write_table(mixed.slice(0, 50), tmp_path / "mixed" / "a.parquet")
    pq.write_table(mixed.slice(50), tmp_path / "mixed" / "b.parquet")
    keys: Any = [("dialogue_id", "ascending"), ("utterance_index", "ascending")]
    one, two = (table_of(run(root, str(tmp_path / name))).sort_by(keys) for name in ("sorted", "mixed"))
    for name in ("dialogue_id", "utterance_index", "label", "true_label"):
        assert one[name].to_pylist() == two[name].to_pylist()
    np.testing.assert_allclose(one["votes"].to_numpy(), two["votes"].to_numpy(), rtol=1e-4, atol=1e-5)
    scores = [manifest_of(run(root, str(tmp_path / name))).scores for name in ("sorted", "mixed")]
    assert {found.split: found for found in scores[0]} == {found.split: found for found in scores[1]}


def test_the_order_is_that_of_the_source(root: str, features: FeatureSet, tmp_path: Path) -> None:
    table = write_rows(tmp_path / "a.parquet", features)
    dialogues: list[Any] = pc.unique(table["dialogue_id"]).to_pylist()[::-1]
    turned = pa.concat_tables(table.filter(pc.equal(table["dialogue_id"], pa.scalar(name))) for name in dialogues)
    pq.write_table(turned, tmp_path / "b.parquet")
    found = table_of(run(root, str(tmp_path / "b.parquet")))
    assert found["utterance_id"].to_pylist() == turned["utterance_id"].to_pylist()


def test_pieces_in_which_a_table_is_read_change_nothing(
    root: str, features: FeatureSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path / "a.parquet", features)
    found = []
    for place, chunk in enumerate((1, 7, 100_000)):
        monkeypatch.setattr(source, "_CHUNK", chunk)
        monkeypatch.setattr(source, "SHARD_BYTES", 40 * 4 * 76)
        parts = contents(run(root, str(tmp_path / "a.parquet"), out=str(tmp_path / f"out{place}")))
        del parts["manifest.json"]
        found.append(parts)
    assert len(found[0]) > 3
    assert found[0] == found[1] == found[2]


def test_cutting_keeps_dialogues_whole() -> None:
    index = [i for length in (3, 1, 9, 2, 2, 2) for i in range(length)]
    table = pa.table({"utterance_index": index})
    cuts = [part.num_rows for part in source.cut(iter([table]), 4)]
    assert cuts == [4, 9, 4, 2]
    for size in (1, 2, 5):
        pieces = (table.slice(first, size) for first in range(0, len(index), size))
        assert [part.num_rows for part in source.cut(pieces, 4)] == cuts


def test_labels_by_index_name_or_not_at_all(root: str, features: FeatureSet, tmp_path: Path) -> None:
    table = write_rows(tmp_path / "a.parquet", features)
    names = features.manifest.labels
    expected: list[Any] = table["label"].to_pylist()
    known = [None if row % 3 == 0 else names[label] for row, label in enumerate(expected)]
    place = table.column_names.index("label")
    pq.write_table(table.set_column(place, "label", pa.array(known)), tmp_path / "b.parquet")
    found = table_of(run(root, str(tmp_path / "b.parquet")))
    assert found["true_label"].to_pylist() == known
    by_index = run(root, str(tmp_path / "a.parquet"), split="test")
    assert manifest_of(by_index).scores == manifest_of(run(root, features.uri, split="test")).scores
    pq.write_table(table.set_column(place, "label", pa.array(["happy"] * len(known))), tmp_path / "c.parquet")
    with pytest.raises(DataError, match=r"Column `label` of .*c\.parquet must hold a known class, .* holds 'happy'"):
        prepare(PredictSpec(version="tiny", source=str(tmp_path / "c.parquet")), root=root)


def broken(table: pa.Table, field: str, row: int, value: Any) -> pa.Table:
    values = table[field].to_pylist()
    values[row] = value
    kind = pa.list_(pa.float32()) if field.endswith("_feat") else table[field].type
    return table.set_column(table.column_names.index(field), field, pa.array(values, kind))


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (
            ("text_feat", 150),
            [1.0] * 31,
            r"must hold vectors of width 32, .* tiny@1 was trained on, but row 150 .* width 31",
        ),
        (("audio_feat", 160), [float("nan")] * 24, "must hold finite float32 numbers, but row 160"),
        (("utterance_index", 3), 90, "must count 0, 1, 2"),
        (("dialogue_id", 4), None, r"`dialogue_id` .* must hold a value in every row, but row 4"),
        (("split", 5), "trial", "must hold one of train"),
    ],
)
def test_bad_tables_leave_nothing(
    features: FeatureSet, tmp_path: Path, at: tuple[str, int], value: Any, message: str
) -> None:
    root = (tmp_path / "store").as_uri()
    table = write_rows(tmp_path / "a.parquet", features)
    pq.write_table(broken(table, *at, value), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=message):
        prepare(PredictSpec(version="tiny", source=str(tmp_path / "a.parquet")), root=root)
    assert not [name for name in written(tmp_path / "store" / "predictions") if name.endswith("parquet")]


def test_a_table_without_a_modality_of_the_model(root: str, features: FeatureSet, tmp_path: Path) -> None:
    write_rows(tmp_path / "a.parquet", features, without=("visual_feat",))
    with pytest.raises(DataError, match=r"must have the column `visual_feat` with vectors of width 20, .* tiny@1"):
        prepare(PredictSpec(version="tiny", source=str(tmp_path / "a.parquet")), root=root)
    write_rows(tmp_path / "a.parquet", features, without=("split",))
    with pytest.raises(DataError, match=r"must hold rows of the split 'dev', but has no splits"):
        prepare(PredictSpec(version="tiny", source=str(tmp_path / "a.parquet"), split="dev"), root=root)


def test_speakers_are_numbered_by_appearance() -> None:
    random = np.random.RandomState(0)
    lengths = random.randint(1, 9, 50)
    speakers = random.randint(0, 6, lengths.sum())
    expected: list[int] = []
    for part in np.split(speakers, np.cumsum(lengths)[:-1]):
        seen = list(dict.fromkeys(part.tolist()))
        expected += [seen.index(who) for who in part.tolist()]
    assert by_appearance(speakers, lengths).tolist() == expected


def test_empty_labels_are_absent(root: str, features: FeatureSet, tmp_path: Path) -> None:
    table = write_rows(tmp_path / "a.parquet", features)
    names = features.manifest.labels
    labels = [("", "  ", f" {names[0]} ")[row % 3] for row in range(table.num_rows)]
    pq.write_table(
        table.set_column(table.column_names.index("label"), "label", pa.array(labels)), tmp_path / "b.parquet"
    )
    found = table_of(run(root, str(tmp_path / "b.parquet")))
    assert found["true_label"].to_pylist() == [(None, None, names[0])[row % 3] for row in range(table.num_rows)]


@pytest.mark.parametrize("column", ["visual_feat", "label", "split", "speaker"])
def test_a_column_without_values_has_no_type(root: str, features: FeatureSet, tmp_path: Path, column: str) -> None:
    table = write_rows(tmp_path / "typed.parquet", features)
    place, rows = table.column_names.index(column), table.num_rows
    for name, kind in (("typed", table[column].type), ("null", pa.null())):
        (tmp_path / name).mkdir()
        nothing = table.set_column(place, pa.field(column, kind), pa.nulls(rows, kind))
        pq.write_table(nothing, tmp_path / name / "a.parquet")
    empty = pa.table({name: pa.nulls(0) for name in table.column_names})
    pq.write_table(empty, tmp_path / "null" / "0.parquet")  # as pandas writes a day without rows
    typed, null = (table_of(run(root, str(tmp_path / name))) for name in ("typed", "null"))
    assert typed.equals(null)
    assert null.num_rows == rows


def test_splits_in_the_names_of_folders(root: str, features: FeatureSet, tmp_path: Path) -> None:
    table = write_rows(tmp_path / "a.parquet", features)
    pq.write_to_dataset(table, tmp_path / "parts", partition_cols=["split"])
    (tmp_path / "parts" / "split=test" / "_unfinished.parquet").write_bytes(b"")
    whole, parts = (manifest_of(run(root, str(tmp_path / name), split="test")) for name in ("a.parquet", "parts"))
    assert parts.utterances == whole.utterances == features.manifest.splits["test"].utterances
    assert parts.scores == whole.scores
