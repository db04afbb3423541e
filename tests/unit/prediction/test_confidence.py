"""Calibrated probabilities of a version, and labels that are withheld below a confidence."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ada2i import storage
from ada2i.data.manifest import FeatureSet
from ada2i.errors import ConfigError
from ada2i.evaluation.metrics import confusion_matrix, scores
from ada2i.inference.models import load_model
from ada2i.inference.predict import predict_logits, predict_split
from ada2i.inference.versions import open_version
from ada2i.loader.split_data import open_split
from ada2i.prediction.request import PredictSpec, prepare
from ada2i.promotion.predictions import predictions
from ada2i.records import Calibration, RiskPoint
from ada2i.registry.versions import find, version_uri
from tests.unit.prediction.tiny import manifest_of, registered, run, table_of

HOT = Calibration(
    temperature=2.5,
    utterances=9,
    calibration_error=0.1,
    before=(),
    after=(),
    risk=(RiskPoint(min_confidence=0.0, coverage=1.0, risk=0.5),),
)


def probabilities(table: pa.Table, names: tuple[str, ...]) -> Any:
    return np.stack([table[f"p_{name}"].to_numpy() for name in names], axis=1)


def test_a_version_divides_its_logits_by_its_temperature_and_keeps_its_labels(root: str, features: FeatureSet) -> None:
    version = registered(root, features.info(), calibration=HOT)
    assert find(root, "tiny").temperature == 2.5
    model = load_model(version_uri(root, version), version)
    data = open_split(features, "test", model.modalities)
    _, logits = predict_logits(model, data, 7)
    table, names = table_of(run(root, features.uri, split="test")), tuple(features.manifest.labels)
    np.testing.assert_allclose(probabilities(table, names), (logits / 2.5).softmax(dim=-1).numpy(), atol=1e-6)
    assert table["label"].to_pylist() == [names[place] for place in logits.argmax(dim=-1).tolist()]
    # What is scored, and what the gate compares, is as trained.
    as_trained = logits.softmax(dim=-1).numpy()
    np.testing.assert_array_equal(predict_split(model, data, 7)[1], as_trained)
    gate = np.array(predictions(root, version, features, "dev")["probabilities"].to_pylist())
    dev = predict_logits(model, open_split(features, "dev", model.modalities), 7)[1]
    np.testing.assert_allclose(gate, dev.softmax(dim=-1).numpy(), atol=1e-6)


def test_older_versions_and_checkpoints_have_none(root: str, features: FeatureSet) -> None:
    version = registered(root, features.info())
    uri, found = open_version(root, "tiny")
    assert found.temperature == load_model(uri, version).temperature == 1.0
    assert b"temperature" not in storage.get(storage.join(uri, "manifest.json"))


@pytest.mark.parametrize("calibration", [None, HOT])
def test_labels_below_the_confidence_are_withheld(
    root: str, features: FeatureSet, calibration: Calibration | None
) -> None:
    registered(root, features.info(), calibration=calibration)
    names = tuple(features.manifest.labels)
    whole = table_of(run(root, features.uri, split="test"))
    largest = probabilities(whole, names).max(axis=1)
    least = float(np.median(largest)) + 1e-4
    uri = run(root, features.uri, split="test", min_confidence=least)
    table, manifest, kept = table_of(uri), manifest_of(uri), largest >= least
    assert 0 < kept.sum() < len(kept)
    expected = [name if keep else None for name, keep in zip(whole["label"].to_pylist(), kept, strict=True)]
    assert table["label"].to_pylist() == expected
    assert table.drop_columns("label").equals(whole.drop_columns("label"))
    assert manifest.withheld == len(kept) - kept.sum()
    assert sum(manifest.predicted.values()) == kept.sum()
    true, guess = (np.array([names.index(name) for name in whole[c].to_pylist()]) for c in ("true_label", "label"))
    counts = confusion_matrix(true[kept], guess[kept], len(names))
    assert manifest.scores == (scores(counts, names, "test"),)


def test_the_confidence_is_part_of_a_prediction(root: str, features: FeatureSet) -> None:
    registered(root, features.info())
    spec = PredictSpec(version="tiny", source=features.uri, split="test")
    jobs = [prepare(spec.model_copy(update={"min_confidence": p}), root=root).uri for p in (0.0, 0.3, 0.3, 0.4)]
    assert jobs[1] == jobs[2]
    assert len(set(jobs)) == 3
    prepare(spec.model_copy(update={"min_confidence": 0.3}), root=root, run_id="own")
    with pytest.raises(ConfigError, match="another version, source, split, confidence"):
        prepare(spec, root=root, run_id="own")


@pytest.mark.parametrize("least", [-0.1, 1.0, float("nan")])
def test_refuses_what_is_no_confidence(root: str, features: FeatureSet, least: float) -> None:
    registered(root, features.info())
    with pytest.raises(ConfigError, match="`min_confidence` must be a probability from 0 to below 1"):
        prepare(PredictSpec(version="tiny", source=features.uri, min_confidence=least), root=root)


def test_refuses_a_model_that_predicts_a_number(root: str, features: FeatureSet) -> None:
    registered(root, features.info(), task="regression", ablations__no_modulation=True)
    with pytest.raises(ConfigError, match="tiny@1 predicts a number"):
        prepare(PredictSpec(version="tiny", source=features.uri, min_confidence=0.5), root=root)
