"""Sums of predictions against their definition, and nights that look like the training set or do not."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ada2i import storage, usecases
from ada2i.data.manifest import open_features
from ada2i.drift import Reference, judge, limits, reference_of
from ada2i.drift.detect import statistics
from ada2i.drift.reference import home, split_sums
from ada2i.errors import DataError
from ada2i.importers.demo import write_demo_corpus
from ada2i.inference.models import load_model
from ada2i.inference.predict import Dialogues, infer
from ada2i.inference.sums import BINS, EDGES, Columns, dialogue_sums
from ada2i.modalities import Modality
from ada2i.prediction.request import PredictSpec
from ada2i.registry.versions import Version, version_uri
from ada2i.store import Store
from tests.unit.prediction.tiny import registered

NIGHT = 30  # dialogues


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Version, Reference]:
    """A version on 300 synthetic dialogues, and its reference."""
    root = tmp_path_factory.mktemp("drift").as_uri()
    features = open_features(write_demo_corpus(root, dialogues=300))
    version = registered(root, features.info())
    return root, version, reference_of(root, version)


def dialogues(lengths: tuple[int, ...], widths: Mapping[Modality, int]) -> Dialogues:
    random, rows = np.random.default_rng(0), sum(lengths)
    there = random.random(rows) < 0.7
    return Dialogues(
        features={m: random.standard_normal((rows, w)).astype(np.float32) for m, w in widths.items()},
        present={m: there if m == "audio" else np.ones(rows, np.bool_) for m in widths},
        speakers=np.zeros(rows, np.int64),
        lengths=np.array(lengths),
        padded=None,
    )


def test_sums_are_those_of_each_dialogue(made: tuple[str, Version, Reference]) -> None:
    root, version, _ = made
    model = load_model(version_uri(root, version), version)
    given = dialogues((2, 5, 1), version.features.widths)
    inference = infer(model, given, batch=64, device=torch.device("cpu"))
    sums = dialogue_sums(model, given, inference)
    columns = Columns.of(version.features.widths, len(version.features.labels))
    at = columns.places
    assert sums.shape == (3, columns.size)
    assert sums[:, at["utterances"]].ravel().tolist() == [2, 5, 1]
    rows = slice(2, 7)
    there = given.present["audio"][rows]
    assert sums[1, at["present.audio"]] == [there.sum()]
    vectors = model.standardise["audio"](
        torch.from_numpy(given.features["audio"]), torch.from_numpy(given.present["audio"])
    ).numpy()[rows]
    means = vectors.reshape(5, 8, 3).mean(axis=2)  # 24 columns in 8 groups
    np.testing.assert_allclose(sums[1, at["total.audio"]], means[there].sum(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(sums[1, at["squares.audio"]], (means[there] ** 2).sum(axis=0), rtol=1e-5)
    bins = sums[1, at["bins.audio"]].reshape(8, BINS)
    for group in range(8):
        wanted = np.bincount(np.searchsorted(EDGES, means[there, group]), minlength=BINS)
        assert bins[group].tolist() == wanted.tolist()
    assert sums[1, at["predicted"]].tolist() == np.bincount(inference.labels[rows], minlength=6).tolist()
    np.testing.assert_allclose(sums[1, at["confidence"]], inference.probabilities[rows].max(axis=1).sum(), rtol=1e-6)


def test_the_stability_index_by_hand() -> None:
    columns = Columns({}, 2)
    expected, window = np.zeros(columns.size), np.zeros(columns.size)
    expected[0], window[0] = 99, 9
    expected[columns.places["predicted"]], window[columns.places["predicted"]] = (49, 49), (8, 1)
    names, ((index, *_),) = statistics(columns, expected, window[None])
    assert names[0] == "psi.label"
    assert index == pytest.approx((0.85 - 0.5) * np.log(0.85 / 0.5) + (0.15 - 0.5) * np.log(0.15 / 0.5))


def nights(made: tuple[str, Version, Reference], change: Any = None, number: int = 200) -> list[bool]:
    """Judge windows of test dialogues, which the reference has not seen."""
    root, version, reference = made
    sums, _ = split_sums(root, version, "test", *([change] if change else []))
    random = np.random.default_rng(1)
    drawn = (sums[random.choice(len(sums), NIGHT, replace=False)].sum(axis=0) for _ in range(number))
    bounds = limits(reference, NIGHT)
    return [judge(reference, night, NIGHT, bounds).drifted for night in drawn]


def test_nights_like_the_training_set_are_no_drift(made: tuple[str, Version, Reference]) -> None:
    assert sum(nights(made)) <= 2


@pytest.mark.parametrize("modality", ["audio", "visual"])
def test_another_gain_is_drift(made: tuple[str, Version, Reference], modality: Any) -> None:
    def louder(given: Dialogues) -> Dialogues:
        return replace(given, features={**given.features, modality: given.features[modality] * np.float32(3.0)})

    assert all(nights(made, louder, 5))


def test_missing_sound_is_drift_and_named(made: tuple[str, Version, Reference]) -> None:
    root, version, reference = made

    def silent(given: Dialogues) -> Dialogues:
        gone = np.zeros_like(given.present["audio"])
        features = {**given.features, "audio": np.zeros_like(given.features["audio"])}
        return replace(given, features=features, present={**given.present, "audio": gone})

    sums, _ = split_sums(root, version, "test", silent)
    found = judge(reference, sums[:NIGHT].sum(axis=0), NIGHT)
    assert found.statistics[0].name == "missing.audio"
    assert found.statistics[0].exceeds


def test_a_prediction_keeps_its_window(made: tuple[str, Version, Reference]) -> None:
    root, version, _ = made
    spec = PredictSpec(version="tiny", source=version.features.uri, split="dev", local=True)
    for _ in range(2):
        _, manifest = usecases.predict(spec, Store.open(root), hooks=usecases.Hooks(), extraction_run="x")
    _, ((window, result),) = usecases.drift("tiny", Store.open(root))
    assert (window.run_id, window.sums) == (manifest.run_id, manifest.sums)
    assert result.dialogues == manifest.dialogues
    assert not result.drifted


def test_a_damaged_reference_is_refused_by_name(made: tuple[str, Version, Reference], tmp_path: Path) -> None:
    _, version, _ = made
    uri = storage.join(home(tmp_path.as_uri(), version), "reference.parquet")
    storage.put(uri, b"nothing")
    with pytest.raises(DataError, match=r"reference\.parquet must be the reference of tiny@1"):
        reference_of(tmp_path.as_uri(), version)


def test_too_few_dialogues_are_not_judged(made: tuple[str, Version, Reference]) -> None:
    reference = made[2]
    with pytest.raises(DataError, match="at least 5 dialogues"):
        judge(reference, reference.train, 4)
