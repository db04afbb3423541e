"""A null label is an utterance without a label: it is kept as context; an empty one is refused."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ada2i.audit.audit import audit
from ada2i.data.manifest import FeatureSet, open_features, read_shard
from ada2i.errors import DataError
from ada2i.importers.join import import_joined
from ada2i.importers.table import import_table
from ada2i.records import UNLABELLED
from tests.unit.data.tables import Columns, corpus, write, written

NAMES: list[Any] = ["calm", None, "angry", "calm", None, "calm", None, "angry"]
INDICES: list[Any] = [None if name is None else ["angry", "calm"].index(name) for name in NAMES]


def imported(tmp_path: Path, labels: list[Any], kind: pa.DataType | None = None, **options: Any) -> FeatureSet:
    types = {"label": kind} if kind else None
    source = write(tmp_path / "x.parquet", corpus() | {"label": labels}, types)
    return open_features(import_table(str(source), str(tmp_path / "root"), **options))


def labels_of(features: FeatureSet) -> dict[str, int]:
    tables = [read_shard(features, entry) for entry in features.manifest.shards]
    return {row["utterance_id"]: row["label"] for table in tables for row in table.to_pylist()}


EXPECTED = {"d0_0": 1, "d0_1": -1, "d1_0": 0, "d1_1": 1, "d1_2": -1, "d2_0": 1, "d3_0": -1, "d3_1": 0}


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        (NAMES, pa.string()),
        (NAMES, pa.dictionary(pa.int8(), pa.string())),
        (INDICES, pa.int64()),
        ([float("nan") if index is None else index for index in INDICES], pa.float64()),
    ],
)
def test_a_null_label_is_context(tmp_path: Path, labels: list[Any], kind: pa.DataType) -> None:
    features = imported(tmp_path, labels, kind)
    assert labels_of(features) == EXPECTED
    assert {split: info.class_counts for split, info in features.manifest.splits.items()} == {
        "dev": (0, 1),
        "test": (1, 0),
        "train": (1, 2),
    }
    found = audit(str(tmp_path / "x.parquet"))
    assert (found.null_keys, {split: one.unlabelled for split, one in found.splits.items()}) == (
        {},
        {"train": 2, "dev": 0, "test": 1},
    )
    assert audit(features.uri).null_keys == {}


def test_a_feature_set_keeps_its_utterances_without_a_label(tmp_path: Path) -> None:
    base = imported(tmp_path, NAMES)
    renamed = import_table(base.uri, str(tmp_path / "root"), dataset="other")
    table = str(write(tmp_path / "t.parquet", {n: c for n, c in corpus().items() if n not in ("label", "audio_feat")}))
    joined = import_joined(base.uri, str(tmp_path / "root"), tables={"text": table})
    for uri in (renamed, joined):
        assert labels_of(open_features(uri)) == EXPECTED
        assert open_features(uri).manifest.labels == ("angry", "calm")


def refused(tmp_path: Path, columns: Columns, message: str) -> None:
    source = write(tmp_path / "x.parquet", columns)
    with pytest.raises(DataError, match=message):
        import_table(str(source), str(tmp_path / "root"))
    assert written(tmp_path / "root") == []


@pytest.mark.parametrize("empty", ["", "  ", "\t\n"])
def test_an_empty_label_is_refused_and_null_is_advised(tmp_path: Path, empty: str) -> None:
    message = r"Column `label` of .* must hold a value in every row, but row 2 .* holds .* write null for an utterance"
    refused(tmp_path, corpus() | {"label": ["a", None, empty, "b", "a", "b", "a", "b"]}, message)
    assert audit(str(tmp_path / "x.parquet")).null_keys == {"label": 1}


def test_train_must_hold_labels_of_two_classes(tmp_path: Path) -> None:
    train = 5
    refused(
        tmp_path, corpus() | {"label": [None] * train + ["a", "b", "a"]}, "two classes in train, but holds no label"
    )
    refused(tmp_path, corpus() | {"label": ["a"] + [None] * 4 + ["a", "b", "a"]}, "in train, but holds only a")


def test_a_number_that_is_no_class_is_not_taken_for_null(tmp_path: Path) -> None:
    bad = corpus() | {"label": [0, UNLABELLED, 1, 0, 1, 0, 1, 0]}
    refused(tmp_path, bad, r"must hold integers 0\.\.2, .* holds -1\. Correct the label \(null: none\)")
