"""Scores with missing modalities: what is removed, and what must not change."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ada2i.evaluation.metrics import area, confusion_matrix, weighted_f1
from ada2i.inference.missing import RATES, _thinned, missing_scores
from ada2i.inference.predict import predict, predict_split
from ada2i.records import MissingScore
from ada2i.training.state import build
from ada2i.training.step import unwrap
from tests.unit.training.small import tiny_task


def test_subsets_are_the_scores_of_a_model_that_is_given_no_other_vectors(tmp_path: Path) -> None:
    task = tiny_task(tmp_path, "missing", preset="corrected")
    model = unwrap(build(task).model)
    labels, chances = predict_split(model, task.dev, 4)
    whole = float(weighted_f1(confusion_matrix(labels, chances.argmax(axis=1), 6)))
    found = missing_scores(model, task.dev, 4, whole=whole)
    assert [score.kept for score in found if score.rate is None] == [
        ("text",), ("audio",), ("visual",), ("text", "audio"), ("text", "visual"), ("audio", "visual")
    ]  # fmt: skip
    assert [score.rate for score in found if score.rate is not None] == list(RATES)
    assert next(score for score in found if score.rate == 0.0).weighted_f1 == whole
    for kept in (("text",), ("audio", "visual")):
        batch = task.dev.batch(range(len(task.dev.lengths)), range(len(task.dev.lengths)))
        gone = {m: x * (m in kept) for m, x in batch.features.items()}
        there = {m: x & (m in kept) for m, x in batch.present.items()}
        ((_, prediction),) = predict(model, [replace(batch, features=gone, present=there)], torch.device("cpu"))
        counts = confusion_matrix(batch.labels.numpy(), prediction.logits.argmax(dim=-1).numpy(), 6)
        score = next(score for score in found if score.kept == kept)
        assert score.weighted_f1 == pytest.approx(float(weighted_f1(counts)))


def test_scores_do_not_depend_on_the_batches(tmp_path: Path) -> None:
    task = tiny_task(tmp_path, "batches", preset="corrected")
    torch.manual_seed(3)
    model = unwrap(build(task).model)
    assert missing_scores(model, task.dev, 1, whole=0.5) == missing_scores(model, task.dev, 100, whole=0.5)


def test_a_model_of_one_modality_has_none(tmp_path: Path) -> None:
    task = tiny_task(tmp_path, "one", model__modalities=["text"])
    assert missing_scores(unwrap(build(task).model), task.dev, 4, whole=0.5) == ()


@pytest.mark.parametrize("rate", [0.1, 0.4, 0.7])
def test_vectors_go_missing_at_the_rate_but_never_all_of_an_utterance(rate: float) -> None:
    random = np.random.RandomState(1)
    draws, present = random.random_sample((20_000, 3)), random.random_sample((20_000, 3)) < 0.9
    kept = _thinned(present, draws, rate)
    assert not (kept & ~present).any()
    assert (kept.any(axis=1) == present.any(axis=1)).all()
    whole = present.all(axis=1)
    assert 1 - kept[whole].mean() == pytest.approx(rate - rate**3 / 3, abs=0.01)
    more = _thinned(present, draws, rate + 0.1)
    assert not (more & ~kept).any()  # what is missing at a rate is missing at higher ones


def test_the_area_is_the_mean_height() -> None:
    found = [MissingScore(rate=rate, weighted_f1=score) for rate, score in ((0.0, 0.8), (0.4, 0.6), (0.8, 0.2))]
    assert area([*found, MissingScore(kept=("text",), weighted_f1=0.1)]) == pytest.approx((0.28 + 0.16) / 0.8)
