"""Targets of tables become a column of the shards; a table without labels gets them by sign."""

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ada2i import usecases
from ada2i.data.manifest import FeatureSet, open_features, read_shard
from ada2i.errors import DataError
from ada2i.importers.folds import fold_sets
from ada2i.importers.join import import_joined
from ada2i.importers.published import import_pickle
from ada2i.importers.table import import_table
from ada2i.loader.split_data import open_split
from ada2i.store import Store
from ada2i.training.request import TrainSpec
from tests.unit.importers.test_mmsa import split as mmsa_split
from tests.unit.regression.talks import numbers

COLUMNS = ["dialogue_id", "utterance_index", "split", "target", "text_feat"]


def imported(path: Path, table: pd.DataFrame, *, suffix: str = "parquet") -> FeatureSet:
    if suffix == "csv":
        table = table.assign(text_feat=[str(list(vector)) for vector in table["text_feat"]])
        table.to_csv(path / "talks.csv", index=False)
    else:
        table.to_parquet(path / "talks.parquet", index=False)
    return open_features(import_table(str(path / f"talks.{suffix}"), str(path / "root")))


def rows_of(features: FeatureSet) -> pd.DataFrame:
    table = pa.concat_tables([read_shard(features, entry) for entry in features.manifest.shards])
    return table.to_pandas().set_index(["dialogue_id", "utterance_index"])


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_labels_are_derived_from_the_sign_of_the_target(tmp_path: Path, suffix: str) -> None:
    table = numbers(dialogues=20)[COLUMNS]
    features = imported(tmp_path, table, suffix=suffix)
    manifest, rows = features.manifest, rows_of(features)
    assert manifest.labels == ("negative", "neutral", "positive")
    assert "labels: the sign of `target`" in manifest.source
    for row in table.itertuples():
        found = rows.loc[(row.dialogue_id, row.utterance_index)]
        if np.isnan(row.target):
            assert np.isnan(found["target"])
            assert found["label"] == -1
        else:
            assert found["target"] == np.float32(row.target)
            assert found["label"] == 1 + np.sign(row.target)
    train = manifest.splits["train"].targets
    given = table[table["split"] == "train"]["target"].dropna()
    assert train is not None
    assert train.utterances == len(given)
    assert (train.low, train.high) == pytest.approx((given.min(), given.max()), abs=1e-6)


def test_a_label_of_the_table_stays(tmp_path: Path) -> None:
    table = numbers(dialogues=20)[COLUMNS]
    table["label"] = np.where(table["target"] > 1, "high", "low")
    features = imported(tmp_path, table)
    assert features.manifest.labels == ("high", "low")
    assert "sign" not in features.manifest.source
    assert features.manifest.has_targets


def test_without_a_zero_there_is_no_neutral(tmp_path: Path) -> None:
    table = numbers(dialogues=20)[COLUMNS]
    table["target"] = table["target"].where(table["target"] != 0, 0.2)
    assert imported(tmp_path, table).manifest.labels == ("negative", "positive")


def test_without_numbers_a_set_is_what_it_was(tmp_path: Path) -> None:
    table = numbers(dialogues=20)[COLUMNS]
    table["label"] = np.where(table["target"] > 1, "high", "low")
    plain = imported(tmp_path, table.drop(columns="target"))
    for nothing in (None, "text"):
        features = imported(tmp_path, table.assign(target=nothing))
        assert features.manifest.fingerprint == plain.manifest.fingerprint
        assert not features.manifest.has_targets
    assert b"targets" not in plain.manifest.stored()


@pytest.mark.parametrize(("value", "shown"), [(np.inf, "inf"), (-np.inf, "-inf"), (1e300, "1e\\+300")])
def test_targets_must_be_finite(tmp_path: Path, value: float, shown: str) -> None:
    table = numbers(dialogues=20)[COLUMNS]
    table.loc[4, "target"] = value
    with pytest.raises(DataError, match=f"`target` .* must hold finite float32 numbers, but row 4 .* holds {shown}"):
        imported(tmp_path, table)


def test_a_copy_under_another_name_keeps_the_targets(tmp_path: Path) -> None:
    first = imported(tmp_path, numbers(dialogues=20))
    again = open_features(import_table(first.uri, str(tmp_path / "root"), dataset="other"))
    assert again.manifest.fingerprint != first.manifest.fingerprint
    pd.testing.assert_frame_equal(rows_of(again), rows_of(first))
    other = open_features(import_table(first.uri, str(tmp_path / "elsewhere")))
    assert other.manifest == first.manifest


def test_batches_hold_targets_if_they_are_requested(tmp_path: Path) -> None:
    features = imported(tmp_path, numbers(dialogues=20))
    plain = open_split(features, "train", ("text",))
    assert plain.batch([0], [0, 1]).targets is None
    for window in (1.0, 1e-9):  # as a whole, and as a stream
        split = open_split(features, "train", ("text",), shuffle_gib=window, targets=True)
        places = next(split.epoch(seed=1, epoch=1, batch_dialogues=12).batches())
        first = list(map(str, split.dialogue_ids)).index("d0")
        batch = split.batch([first], places)
        assert batch.targets is not None
        assert batch.targets.isnan().tolist() == [False] * 3 + [True] + [False] * 4
        assert batch.global_labelled == 12 * 8 - 1


def test_a_joined_set_and_folds_keep_the_targets(tmp_path: Path) -> None:
    table = numbers(dialogues=20)
    base, root = imported(tmp_path, table), str(tmp_path / "root")
    more = table[["dialogue_id", "utterance_index", "split"]].assign(visual_feat=[np.ones(3, np.float32)] * len(table))
    more.to_parquet(tmp_path / "visual.parquet", index=False)
    joined = open_features(import_joined(base.uri, root, tables={"visual": str(tmp_path / "visual.parquet")}))
    assert joined.manifest.widths["visual"] == 3
    for features in (joined, *map(open_features, fold_sets(base.uri, root, folds=4))):
        pd.testing.assert_series_equal(rows_of(features)["target"].sort_index(), rows_of(base)["target"].sort_index())


@pytest.mark.parametrize(("name", "scores"), [("mosi", ("acc5", "acc7")), ("sims", ("acc3", "acc5"))])
def test_a_pickle_of_mmsa_trains_a_regression(tmp_path: Path, name: str, scores: tuple[str, ...]) -> None:
    part = {split: mmsa_split(20, place, aligned=True) for place, split in ((0, "train"), (40, "valid"), (80, "test"))}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(part))
    features = import_pickle(str(tmp_path / "x.pkl"), str(tmp_path), dataset=name)
    spec = TrainSpec(features=features, overrides={"task": "regression", "training.epochs": 1}, local=True)
    result = usecases.train_run(spec, Store.open(str(tmp_path)), run_id="r", hooks=usecases.Hooks())
    (test,) = result.tests
    assert test.regression is not None
    numbers = test.regression.numbers()
    assert set(scores) < numbers.keys()
    assert ("acc2_nonzero" in numbers) is (name == "mosi")
