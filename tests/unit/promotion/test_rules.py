"""The rules of the gate: each by hand, on predictions whose scores are known."""

import pytest

from ada2i.evaluation.compare import compare
from ada2i.promotion.rules import GateRules, against, alone, enough, measure, not_used_up, over_floor
from ada2i.records import RuleResult
from tests.unit.evaluation.predictions import columns, predictions, stored

LABELS = ("a", "b", "c")
RULES = GateRules(resamples=500)


def results(rules: GateRules, challenger: bytes, champion: bytes) -> dict[str, RuleResult]:
    sides = measure(challenger, LABELS, "gate"), measure(champion, LABELS, "gate")
    return {result.rule: result for result in against(rules, challenger, champion, sides)}


def test_measures_are_those_of_the_file() -> None:
    side = measure(predictions(right=1.0), LABELS, "gate")
    assert (side.scores.weighted_f1, side.calibration_error) == (1.0, 0.0)
    assert side.scores.split == "gate"
    wrong = measure(predictions(right=0.0), LABELS, "gate")
    assert (wrong.scores.weighted_f1, wrong.calibration_error) == (0.0, 1.0)


@pytest.mark.parametrize(("dialogues", "utterances"), [(9, 99), (9, 100), (10, 99), (10, 100)])
def test_there_must_be_enough(dialogues: int, utterances: int) -> None:
    found = list(enough(RULES, dialogues=dialogues, utterances=utterances))
    assert [result.passed for result in found] == [dialogues >= 10, utterances >= 100]


def test_a_test_split_is_used_up() -> None:
    assert not_used_up(RULES, 20).passed
    assert not not_used_up(RULES, 21).passed


def test_the_lower_bound_decides_and_not_the_difference() -> None:
    better, base = predictions(right=0.62, seed=3), predictions(right=0.6)
    bound = results(RULES, better, base)["weighted-f1"]
    gap = compare(base, better, rounds=500, level=0.9).differences["weighted_f1"]
    assert bound.measured == pytest.approx(gap.interval.low)
    assert bound.measured < gap.difference
    assert bound.passed == (gap.interval.low >= -0.02)
    at = RULES.model_copy(update={"margin": -bound.measured})
    assert results(at, better, base)["weighted-f1"].passed
    below = RULES.model_copy(update={"margin": -bound.measured - 1e-9})
    assert not results(below, better, base)["weighted-f1"].passed


def test_the_same_model_is_no_worse() -> None:
    same = predictions()
    assert all(result.passed for result in results(GateRules(margin=0.0, resamples=500), same, same).values())


def test_a_class_may_not_collapse() -> None:
    values, base = columns(right=0.9), columns(right=0.9)
    values["prediction"] = [0 if said == 2 else said for said in values["prediction"]]
    collapsed, champion = stored(values), stored(base)
    found = results(RULES, collapsed, champion)["class-drop"]
    assert not found.passed
    assert found.measured == pytest.approx(measure(champion, LABELS, "gate").scores.classes[2].f1)
    floor = alone(RULES, measure(collapsed, LABELS, "gate"))
    assert (floor.passed, floor.measured) == (False, 0.0)
    assert "(c)" in floor.says
    assert alone(RULES, measure(champion, LABELS, "gate")).passed


def test_rare_classes_are_not_held_to_floors() -> None:
    rare = GateRules(class_utterances=10_000)
    side = measure(predictions(right=0.0), LABELS, "gate")
    assert alone(rare, side).passed
    assert results(rare, predictions(right=0.0), predictions())["class-drop"].passed


def test_a_model_may_not_become_too_sure() -> None:
    base = columns(right=0.6)
    honest = base | {"probabilities": [[0.6 if c == said else 0.2 for c in range(3)] for said in base["prediction"]]}
    found = results(RULES, stored(base), stored(honest))["calibration"]
    assert not found.passed
    assert found.measured > 0.3
    assert results(RULES, stored(honest), stored(base))["calibration"].passed


@pytest.mark.parametrize(("right", "passed"), [(0.9, True), (0.6, True), (0.3, False)])
def test_a_challenger_must_not_be_below_the_linear_floor(right: float, passed: bool) -> None:
    floor, side = predictions(right=0.6), measure(predictions(right=right), LABELS, "gate")
    result = over_floor(RULES, side, floor, name="text")
    assert result.passed is passed
    assert result.measured == side.scores.weighted_f1
    assert "the linear floor on text, which has" in result.says


def test_the_floor_bound_is_the_lower_end_of_its_interval() -> None:
    floor = predictions(right=0.6)
    side = measure(floor, LABELS, "gate")
    result = over_floor(RULES, side, floor, name="text")
    assert result.bound < side.scores.weighted_f1
    strict = RULES.model_copy(update={"min_over_floor": side.scores.weighted_f1 - result.bound + 1e-9})
    assert not over_floor(strict, side, floor, name="text").passed
