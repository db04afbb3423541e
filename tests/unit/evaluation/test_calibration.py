"""Calibration against hand-computed examples and an oracle that goes by single utterances; where it is stored."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ada2i.errors import DataError
from ada2i.evaluation.calibration import expected_calibration_error, fit_temperature, reliability, risk_coverage
from ada2i.records import Calibration, ReliabilityBin, RiskPoint, RunRequest, TestResult
from ada2i.reports import report
from ada2i.training import evaluate
from tests.unit.evaluation.predictions import split_of
from tests.unit.evaluation.runs import build_run


def two_classes(confidences: list[float]) -> list[list[float]]:
    return [[confidence, 1 - confidence] for confidence in confidences]


def test_error_by_hand() -> None:
    # Bins of width 0.2: two utterances in (0.6, 0.8] of which one is right, two in (0.8, 1] that are both right.
    found = expected_calibration_error(two_classes([0.65, 0.75, 0.85, 0.95]), [0, 1, 0, 0], bins=5)
    assert found == pytest.approx(2 / 4 * abs(1 / 2 - 0.7) + 2 / 4 * abs(1 - 0.9))


def test_bins_hold_their_upper_edge() -> None:
    # Together in (0.5, 0.75], under- and overconfidence cancel; apart, they add up.
    probabilities = two_classes([0.75, 0.625])
    assert expected_calibration_error(probabilities, [0, 1], bins=4) == pytest.approx(abs(0.5 - 0.6875))
    assert expected_calibration_error(probabilities, [0, 1], bins=8) == pytest.approx((0.25 + 0.625) / 2)


@pytest.mark.parametrize(("label", "error"), [(0, 0.0), (1, 1.0)])
def test_certainty(label: int, error: float) -> None:
    assert expected_calibration_error([[1.0, 0.0]], [label]) == error


def test_ties_predict_the_first_class() -> None:
    assert expected_calibration_error([[0.5, 0.5]], [0]) == 0.5
    assert expected_calibration_error([[0.5, 0.5]], [1]) == 0.5
    assert expected_calibration_error([[0.5, 0.5]] * 2, [0, 1]) == 0.0


@given(
    st.lists(st.tuples(st.lists(st.integers(1, 50), min_size=3, max_size=3), st.integers(0, 2)), min_size=1),
    st.integers(1, 20),
)
def test_error_equals_the_oracle(utterances: list[tuple[list[int], int]], bins: int) -> None:
    probabilities = [[weight / sum(weights) for weight in weights] for weights, _ in utterances]
    members: dict[int, list[tuple[float, bool]]] = {}
    for chances, (_, label) in zip(probabilities, utterances, strict=True):
        confidence = max(chances)
        (place,) = (b for b in range(bins) if b / bins < confidence <= (b + 1) / bins)
        members.setdefault(place, []).append((confidence, chances.index(confidence) == label))
    expected = 0.0
    for held in members.values():
        accuracy = sum(right for _, right in held) / len(held)
        expected += len(held) / len(utterances) * abs(accuracy - sum(sure for sure, _ in held) / len(held))
    found = expected_calibration_error(probabilities, [label for _, label in utterances], bins=bins)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        ([[0.5, 0.5]], [0, 1], r"got shapes \(1, 2\) and \(2,\)"),
        ([0.5, 0.5], [0, 1], "needs probabilities of shape"),
        (np.empty((0, 2)), np.empty(0, np.int64), "of one utterance or more"),
        ([[0.5, 0.5]], [2], "Labels must be integers from 0 to 1, but range from 2 to 2"),
        ([[np.nan, 0.5]], [0], "must be numbers from 0 to 1, but some are not"),
        ([[2.0, -1.0]], [0], "Pass the softmax of the logits"),
    ],
)
def test_error_refuses(probabilities: list[list[float]], labels: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        expected_calibration_error(probabilities, labels)


def test_reports_show_it_and_older_tests_load_without() -> None:
    run = build_run(("a", "b"), seeds=(1, 2), epochs=1)
    assert [row["ECE"] for row in report.scores_table(run)] == ["", "", ""]
    older = run.tests[0].model_dump(exclude={"calibration_error"})
    assert TestResult.model_validate(older) == run.tests[0]
    newer = run.tests[0].model_copy(update={"calibration_error": 0.123456})
    shown = run.model_copy(update={"tests": (newer, run.tests[1])})
    assert [row["ECE"] for row in report.scores_table(shown)] == [0.1235, "", ""]
    assert ">ECE</th>" in report.render_report(shown)
    assert "0.1235" in report.markdown_summary(shown)


def test_evaluation_stores_it() -> None:
    run = build_run(("a", "b"), seeds=(1,), epochs=1)
    request = RunRequest(run_id=run.run_id, config=run.config, features=run.features)
    split = split_of({"d0": 2, "d1": 1})
    probabilities = np.array([[0.75, 0.25], [0.25, 0.75], [0.875, 0.125]], np.float32)
    test = evaluate._score(request, run.seeds[0], split, np.array([0, 0, 0]), probabilities)
    assert test.scores.confusion == ((2, 1), (0, 0))
    # Two in (11/15, 12/15], one right; one in (13/15, 14/15], right.
    assert test.calibration_error == pytest.approx(2 / 3 * 0.25 + 1 / 3 * 0.125)


@pytest.mark.parametrize("sure", [0.5, 1.0, 6.0])
def test_the_temperature_by_hand(sure: float) -> None:
    # Three of four are right at a margin of `sure`: softmax is 3/4 at sure / T = ln 3.
    logits = [[sure, 0.0], [sure, 0.0], [0.0, sure], [sure, 0.0]]
    assert fit_temperature(logits, [0, 0, 1, 1]) == pytest.approx(sure / np.log(3), rel=1e-6)


def test_the_temperature_is_the_best_of_many() -> None:
    random = np.random.RandomState(5)
    labels = random.randint(4, size=300)
    logits = 3 * random.normal(size=(300, 4)) + 2 * np.eye(4)[labels]

    def loss(temperature: float) -> float:
        scaled = logits / temperature
        return float((np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(300), labels]).mean())

    found = fit_temperature(logits, labels)
    assert found > 1.5  # it was too sure
    assert all(loss(found) <= loss(other) for other in np.geomspace(0.05, 20, 400))
    assert fit_temperature(logits + 7, labels) == pytest.approx(found)
    assert fit_temperature(logits / found, labels) == pytest.approx(1.0)


def test_the_temperature_is_bounded() -> None:
    assert fit_temperature([[1.0, 0.0]], [0]) == pytest.approx(1 / 20)  # always right: as sure as can be
    assert fit_temperature([[1.0, 0.0]], [1]) == pytest.approx(20)
    assert fit_temperature(np.zeros((0, 3)), []) == 1.0
    assert np.isfinite(fit_temperature([[1e4, 0.0], [0.0, 1e4]], [0, 0]))


@pytest.mark.parametrize(
    ("logits", "labels"), [([[0.0, np.nan]], [0]), ([[0.0, 1.0]], [0, 1]), ([0.0, 1.0], [0]), ([[0.0, 1.0]], [2])]
)
def test_the_temperature_refuses(logits: list[list[float]], labels: list[int]) -> None:
    with pytest.raises(DataError):
        fit_temperature(logits, labels)


def test_reliability_and_risk_by_hand() -> None:
    probabilities, labels = two_classes([0.65, 0.75, 0.85, 0.95]), [0, 1, 0, 0]
    bins: list[Any] = [
        (found.utterances, found.confidence, found.accuracy) for found in reliability(probabilities, labels, 5)
    ]
    assert bins == [(2, pytest.approx(0.7), 0.5), (2, pytest.approx(0.9), 1.0)]
    points = risk_coverage(probabilities, labels, thresholds=(0.0, 0.75, 0.8, 0.99))  # no utterance reaches the last
    found: list[Any] = [(point.min_confidence, point.coverage, point.risk) for point in points]
    assert found == [(0.0, 1.0, 0.25), (0.75, 0.75, pytest.approx(1 / 3)), (0.8, 0.5, 0.0)]


def test_reports_show_the_calibration_of_the_best_seed() -> None:
    run = build_run(("a", "b"), seeds=(1, 2), epochs=1)
    assert "Calibration" not in report.render_report(run)
    bins = (ReliabilityBin(utterances=3, confidence=0.7, accuracy=0.5),)
    risk = tuple(RiskPoint(min_confidence=p, coverage=1 - p, risk=0.4 - p / 4) for p in (0.0, 0.05, 0.1))
    fitted = Calibration(temperature=1.75, utterances=44, calibration_error=0.0219, before=bins, after=bins, risk=risk)
    tests = tuple(test.model_copy(update={"calibration_error": 0.123, "calibration": fitted}) for test in run.tests)
    shown = run.model_copy(update={"tests": tests})
    for page in (report.render_report(shown), report.markdown_summary(shown)):
        assert "44 utterances of dev" in page
        assert "0.1230 as trained, 0.0219 with it" in page
    assert "Accuracy by confidence" in report.render_report(shown)
    assert [row["utterances with a label"] for row in report.confidence_table(shown)] == ["100.0%", "90.0%"]
    assert TestResult.model_validate_json(tests[0].model_dump_json()) == tests[0]
