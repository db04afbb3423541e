from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from ada2i.data import schema
from ada2i.data.manifest import FeatureSet, open_features, read_shard
from ada2i.errors import DataError
from ada2i.importers.demo import LABELS, write_demo_corpus
from ada2i.modalities import MODALITIES
from tests.unit.data.tables import written


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> FeatureSet:
    return open_features(write_demo_corpus(str(tmp_path_factory.mktemp("demo"))))


def rows_of(features: FeatureSet, split: str) -> pa.Table:
    return pa.concat_tables([read_shard(features, entry) for entry in features.shards(split)])


def probe(
    train: tuple[NDArray[np.float64], NDArray[np.int32]], test: tuple[NDArray[np.float64], NDArray[np.int32]]
) -> float:
    """Weighted F1 on test of the softmax regression that the module describes."""
    (x, y), (x_test, y_test) = train, test
    mean, deviation = x.mean(0), x.std(0)
    x, x_test = (np.c_[(values - mean) / deviation, np.ones(len(values))] for values in (x, x_test))
    weights, target = np.zeros((x.shape[1], len(LABELS))), np.eye(len(LABELS))[y]
    for _ in range(500):
        odds = np.exp(x @ weights)
        weights -= 0.5 * (x.T @ (odds / odds.sum(1, keepdims=True) - target) / len(x) + 0.001 * weights)
    guess = (x_test @ weights).argmax(1)
    terms = (
        (y_test == c).mean()
        * 2
        * ((guess == c) & (y_test == c)).sum()
        / max(1, (guess == c).sum() + (y_test == c).sum())
        for c in range(len(LABELS))
    )
    return float(sum(terms))


def test_it_says_that_it_is_made_up(features: FeatureSet) -> None:
    manifest = features.manifest
    assert manifest.synthetic
    assert manifest.dataset == "synthetic-demo"
    assert manifest.source.startswith("synthetic")
    assert all(info.encoder.startswith("synthetic") for info in manifest.modalities.values())


def test_the_modalities_are_imbalanced_as_the_module_says(features: FeatureSet) -> None:
    train, test = rows_of(features, "train"), rows_of(features, "test")
    scores = []
    for modality in MODALITIES:
        sides = [
            (
                schema.unpack_vectors(side[schema.vector_column(modality)])[0].astype(np.float64),
                side["label"].to_numpy(),
            )
            for side in (train, test)
        ]
        scores.append(probe(*sides))
    assert scores == pytest.approx([0.71, 0.49, 0.28], abs=0.02)


def test_emotions_are_kept_and_caught(features: FeatureSet) -> None:
    rows = rows_of(features, "train")
    label, turn = rows["label"].to_numpy(), rows["utterance_index"].to_numpy()
    by_chance = sum((label == c).mean() ** 2 for c in range(len(LABELS)))
    kept = (label[2:] == label[:-2])[turn[2:] >= 2].mean()
    caught = (label[1:] == label[:-1])[turn[1:] >= 1].mean()
    assert kept > by_chance + 0.15
    assert caught > by_chance + 0.03


def test_shape_and_gaps(features: FeatureSet) -> None:
    manifest = features.manifest
    assert manifest.widths == {"text": 32, "audio": 24, "visual": 20}
    assert {name: info.dialogues for name, info in manifest.splits.items()} == {"dev": 10, "test": 19, "train": 67}
    assert all(min(manifest.splits[split].class_counts) > 0 for split in manifest.splits)
    rows = pa.concat_tables([rows_of(features, split) for split in manifest.splits])
    _, lengths = np.unique(rows["dialogue_id"].to_numpy(), return_counts=True)
    assert (lengths.min(), lengths.max()) == (6, 16)
    assert rows["text_feat"].null_count == 0
    assert rows["text"].null_count == 0
    for column in ("audio_feat", "visual_feat"):
        assert 0.01 < rows[column].null_count / rows.num_rows < 0.05


def test_the_same_arguments_give_the_same_set(features: FeatureSet, tmp_path: Path) -> None:
    assert open_features(write_demo_corpus(str(tmp_path))).manifest == features.manifest
    assert open_features(write_demo_corpus(str(tmp_path), seed=8)).manifest != features.manifest


def test_a_small_one_has_all_splits(tmp_path: Path) -> None:
    manifest = open_features(write_demo_corpus(str(tmp_path), dialogues=5)).manifest
    assert {name: info.dialogues for name, info in manifest.splits.items()} == {"dev": 1, "test": 1, "train": 3}


def test_too_few_dialogues(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^`dialogues` must be at least 5, .* but is 4\."):
        write_demo_corpus(str(tmp_path), dialogues=4)
    assert written(tmp_path) == []
