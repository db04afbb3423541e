"""The benchmarks' own code still runs; their figures are not judged."""

import pytest

from tests.benchmarks import imbalance, prediction


@pytest.mark.slow
def test_a_small_prediction_is_measured() -> None:
    figures = {figure.name: figure.value for figure in prediction.measure(2_000)}
    assert len(figures) == 4
    assert min(figures.values()) > 0


@pytest.mark.slow
def test_umt_is_measured_with_its_teachers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imbalance, "BATCHES", 2)
    monkeypatch.setattr(imbalance, "EPOCHS", 1)
    network, audio = imbalance.trained("umt", 1)
    assert 0 <= network <= 1
    assert 0 <= audio <= 1
