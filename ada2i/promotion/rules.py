"""Rules by which a challenger may replace a champion, from both models' predictions.

Pure computation: the caller chooses the dialogues and acts on the result.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated

import numpy as np
import pyarrow.compute as pc
from pydantic import Field

from ada2i.config import Config
from ada2i.data.parquet import from_parquet
from ada2i.display import count
from ada2i.evaluation.calibration import expected_calibration_error
from ada2i.evaluation.compare import compare
from ada2i.evaluation.metrics import confusion_matrix, dialogue_bootstrap, scores, weighted_f1
from ada2i.evaluation.pooling import dialogue_counts
from ada2i.records import ClassRow, ModelScores, RuleResult

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class GateRules(Config):
    """The rules for a challenger; a first challenger is only held to rules that need no other model."""

    dialogues: int = Field(10, ge=1, description="Minimum number of dialogues to judge by.")
    utterances: int = Field(100, ge=1, description="Minimum number of utterances to judge by.")
    confidence: float = Field(0.95, gt=0.5, lt=1.0, description="One-sided confidence of the difference's lower bound.")
    margin: Share = Field(0.02, description="Maximum loss of weighted F1, at that confidence.")
    class_utterances: int = Field(20, ge=1, description="Classes with fewer utterances are not held to floors.")
    class_floor: Share = Field(0.0, description="F1 that each class must exceed.")
    class_drop: Share = Field(0.15, description="Maximum loss of F1 of a class.")
    min_over_floor: float = Field(
        0.0,
        ge=-1.0,
        le=1.0,
        description="Weighted F1 that the challenger must have above the lower bound of the interval of the linear "
        "floor, on the same dialogues; -1 switches the rule off.",
    )
    calibration_rise: Share = Field(0.05, description="Maximum rise of the expected calibration error.")
    test_uses: int = Field(
        20, ge=0, description="Pairs that one test split may judge if there is no gate split; then it is used up."
    )
    resamples: int = Field(10_000, ge=100, description="Resamples of dialogues for the lower bound.")
    seed: int = Field(0, ge=0, lt=2**32, description="Of the resamples.")


def measure(predictions: bytes, labels: Sequence[str], split: str) -> ModelScores:
    """Return a model's scores on the dialogues of a file of predictions.

    Args:
        predictions: A ``predictions.parquet`` with at least one utterance.
        labels: Class names by index.
        split: Name of the split.
    """
    table = from_parquet(predictions)
    true, predicted = (np.asarray(table[name].to_numpy()) for name in ("label", "prediction"))
    probabilities = np.asarray(pc.list_flatten(table["probabilities"]).to_numpy()).reshape(len(true), -1)
    return ModelScores(
        scores=scores(confusion_matrix(true, predicted, len(labels)), labels, split),
        calibration_error=expected_calibration_error(probabilities, true),
    )


def enough(rules: GateRules, *, dialogues: int, utterances: int) -> Iterator[RuleResult]:
    """Return the result of the rule that there is enough to judge by."""
    for noun, found, least in (("dialogue", dialogues, rules.dialogues), ("utterance", utterances, rules.utterances)):
        says = f"{count(found, noun)} to judge by; at least {least} are needed"
        yield RuleResult(rule=f"{noun}s", passed=found >= least, measured=found, bound=least, says=says)


def not_used_up(rules: GateRules, uses: int) -> RuleResult:
    """Return the result of the rule that a test split has not judged too many pairs, including this one."""
    says = f"this test split has judged {count(uses, 'pair')} of versions, and may judge {rules.test_uses}"
    return RuleResult(rule="test-uses", passed=uses <= rules.test_uses, measured=uses, bound=rules.test_uses, says=says)


def alone(rules: GateRules, challenger: ModelScores) -> RuleResult:
    """Return the result of the rule that a challenger is good enough by itself."""
    rows = _counted(rules, challenger)
    lowest = min(rows, key=lambda row: row.f1, default=None)
    if lowest is None:
        says = f"no class has {count(rules.class_utterances, 'utterance')} to be held to a floor"
        return RuleResult(rule="class-floor", passed=True, measured=1.0, bound=rules.class_floor, says=says)
    says = f"lowest F1 of a class is {lowest.f1:.4f} ({lowest.label}), and must be above {rules.class_floor:g}"
    passed = lowest.f1 > rules.class_floor
    return RuleResult(rule="class-floor", passed=passed, measured=lowest.f1, bound=rules.class_floor, says=says)


def over_floor(rules: GateRules, challenger: ModelScores, floor: bytes, *, name: str) -> RuleResult:
    """Return the result of the rule that a challenger is not below the linear floor.

    Args:
        rules: The rules.
        challenger: Scores of the challenger.
        floor: A ``predictions.parquet`` of the linear model for the same utterances.
        name: The modalities of the linear model.
    """
    counts = dialogue_counts(floor)
    score, found = float(weighted_f1(counts.sum(axis=0))), challenger.scores.weighted_f1
    interval = dialogue_bootstrap(counts, rules.resamples, seed=rules.seed)
    bound = interval.low + rules.min_over_floor
    says = (
        f"weighted F1 is {found:.4f}, and must be at least {bound:.4f}: the lower bound of the linear floor on {name}, "
        f"which has {score:.4f} (interval {interval.low:.4f} to {interval.high:.4f})"
        + (f", and {rules.min_over_floor:+g}" if rules.min_over_floor else "")
    )
    return RuleResult(rule="over-floor", passed=found >= bound, measured=found, bound=bound, says=says)


def against(
    rules: GateRules, challenger: bytes, champion: bytes, sides: tuple[ModelScores, ModelScores]
) -> Iterator[RuleResult]:
    """Yield the results of the rules that compare a challenger with a champion, on the same dialogues.

    Args:
        rules: The rules.
        challenger: A ``predictions.parquet``.
        champion: Another one, of the same utterances.
        sides: Scores of the two models.
    """
    yield _no_worse(rules, challenger, champion)
    yield _no_drop(rules, *sides)
    rise = sides[0].calibration_error - sides[1].calibration_error
    says = (
        f"calibration error is {sides[0].calibration_error:.4f}, the champion's {sides[1].calibration_error:.4f}; it "
        f"may rise by {rules.calibration_rise:g}"
    )
    passed = rise <= rules.calibration_rise
    yield RuleResult(rule="calibration", passed=passed, measured=rise, bound=rules.calibration_rise, says=says)


def _no_worse(rules: GateRules, challenger: bytes, champion: bytes) -> RuleResult:
    # A two-sided interval of 2c - 1 has a lower bound that holds with confidence c.
    level = 2 * rules.confidence - 1
    found = compare(champion, challenger, rounds=rules.resamples, level=level, seed=rules.seed)
    gap = found.differences["weighted_f1"]
    says = (
        f"weighted F1 is {gap.second:.4f}, the champion's {gap.first:.4f}: {gap.difference:+.4f}, and with confidence "
        f"{rules.confidence:g} no less than {gap.interval.low:+.4f}, which must be at least {-rules.margin:+g}"
    )
    passed = gap.interval.low >= -rules.margin
    return RuleResult(rule="weighted-f1", passed=passed, measured=gap.interval.low, bound=-rules.margin, says=says)


def _no_drop(rules: GateRules, challenger: ModelScores, champion: ModelScores) -> RuleResult:
    before = {row.label: row.f1 for row in champion.scores.classes}
    drops = {row.label: before[row.label] - row.f1 for row in _counted(rules, challenger)}
    label = max(drops, key=lambda name: drops[name], default=None)
    if label is None:
        says = f"no class has {count(rules.class_utterances, 'utterance')} to compare"
        return RuleResult(rule="class-drop", passed=True, measured=0.0, bound=rules.class_drop, says=says)
    says = f"largest loss of F1 in a class is {drops[label]:.4f} ({label}), and may be at most {rules.class_drop:g}"
    if drops[label] <= 0:
        says = f"no class lost F1 (smallest gain {-drops[label]:+.4f}, {label}); it may lose {rules.class_drop:g}"
    passed = drops[label] <= rules.class_drop
    return RuleResult(rule="class-drop", passed=passed, measured=drops[label], bound=rules.class_drop, says=says)


def _counted(rules: GateRules, side: ModelScores) -> list[ClassRow]:
    return [row for row in side.scores.classes if row.support >= rules.class_utterances]
