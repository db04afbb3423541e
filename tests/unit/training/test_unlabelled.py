"""Utterances without a label: context for the others, and in no loss, score or count."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ada2i.audit.audit import audit
from ada2i.data.manifest import FeatureSet, open_features
from ada2i.data.shards import write_features
from ada2i.evaluation.probe import held_out_skill
from ada2i.importers.demo import write_demo_corpus
from ada2i.inference.predict import predict_split, predictions_file
from ada2i.loader.order import share
from ada2i.loader.split_data import SplitData, open_split
from ada2i.model.build import build_model
from ada2i.records import UNLABELLED
from ada2i.training.fit import fit
from tests.unit.training.small import Listener, tiny_config, tiny_task


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> FeatureSet:
    """The demo corpus in which every third utterance has no label."""
    root = tmp_path_factory.mktemp("unlabelled")
    whole = open_features(write_demo_corpus((root / "whole").as_uri(), dialogues=26))
    rows = pa.concat_tables([pq.read_table(path) for path in sorted((root / "whole").rglob("part-*.parquet"))])
    labels = rows["label"].to_numpy().copy()
    labels[::3] = UNLABELLED
    place = rows.schema.get_field_index("label")
    rows = rows.set_column(place, rows.schema.field(place), pa.array(labels, pa.int32()))
    manifest = whole.manifest
    uri = write_features(
        (root / "store").as_uri(),
        rows,
        dataset="third",
        synthetic=True,
        labels=manifest.labels,
        encoders={m: info.encoder for m, info in manifest.modalities.items()},
        dev_rule=None,
        source="test",
    )
    return open_features(uri)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.getbasetemp()))


def split(features: FeatureSet, name: str) -> SplitData:
    return open_split(features, name, tiny_config().model.modalities)


def test_counts_are_of_labelled_utterances(features: FeatureSet) -> None:
    for name, info in features.manifest.splits.items():
        held = split(features, name)
        labels = np.concatenate([chunk_labels(held, dialogue) for dialogue in range(len(held.lengths))])
        assert sum(info.class_counts) == np.count_nonzero(labels != UNLABELLED) < info.utterances
        assert not held.all_labelled
    report = audit(features.uri)
    for name, found in report.splits.items():
        assert found.classes is not None
        assert found.unlabelled == found.utterances - sum(found.classes.values())
        assert sum(found.classes.values()) == sum(features.manifest.splits[name].class_counts)


def chunk_labels(held: SplitData, dialogue: int) -> np.ndarray:
    return held.batch([dialogue], [dialogue]).labels.numpy()


def test_every_rank_knows_how_many_labels_a_global_batch_has(features: FeatureSet) -> None:
    train, dialogues = split(features, "train"), [0, 3, 4, 7]
    whole = train.batch(dialogues, dialogues)
    labelled = int((whole.labels != UNLABELLED).sum())
    assert whole.global_labelled == labelled
    for own in share(dialogues, train.lengths, 3):
        assert train.batch(own, dialogues).global_labelled == labelled


def test_training_selects_and_probes_on_labelled_utterances(features: FeatureSet, tmp_path: Path) -> None:
    task = replace(tiny_task(tmp_path, "run"), features=features.info(), train=split(features, "train"))
    task = replace(task, dev=split(features, "dev"))
    result = fit(task, Listener())
    assert result.dev.utterances == sum(features.manifest.splits["dev"].class_counts)
    assert np.isfinite([epoch.loss for epoch in result.history]).all()
    assert result.history[-1].classification_loss < result.history[0].classification_loss
    assert held_out_skill(task.train, "text", classes=len(features.manifest.labels)) > 0.3


def test_a_label_that_is_removed_changes_the_score_and_not_the_predictions(features: FeatureSet) -> None:
    config = tiny_config()
    torch.manual_seed(3)
    model = build_model(config, widths=features.manifest.widths, classes=len(features.manifest.labels))
    test = split(features, "test")
    labels, probabilities = predict_split(model, test, 7)
    assert len(labels) == test.lengths.sum()
    table = pq.read_table(pa.BufferReader(predictions_file(test, labels, probabilities)))
    assert table.num_rows == np.count_nonzero(labels != UNLABELLED)
    assert UNLABELLED not in table["label"].to_pylist()
    assert table["prediction"].to_numpy().tolist() == probabilities.argmax(axis=1)[labels != UNLABELLED].tolist()
