"""Paired tests against oracles that draw dialogue by dialogue, planted differences, and files that do not match."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ada2i.errors import DataError
from ada2i.evaluation import metrics
from ada2i.evaluation.compare import Comparison, compare, verdict
from ada2i.inference.predict import predictions_file
from tests.unit.evaluation.predictions import columns, predictions, split_of, stored

Scored = dict[str, float]
PINNED = (-0.0326103111507271, 0.22262684538271135, 0.132986701329867, 0.18098190180981902)
SCORES = ("weighted_f1", "macro_f1", "accuracy")


def by_dialogue(values: dict[str, list[Any]]) -> dict[str, list[tuple[int, int]]]:
    """Return pairs of true and predicted class by dialogue."""
    found: dict[str, list[tuple[int, int]]] = {}
    for dialogue, true, said in zip(values["dialogue_id"], values["label"], values["prediction"], strict=True):
        found.setdefault(dialogue, []).append((true, said))
    return found


def scored(dialogues: list[list[tuple[int, int]]], classes: int = 3) -> Scored:
    true, said = zip(*itertools.chain.from_iterable(dialogues), strict=True)
    scores = metrics.scores(metrics.confusion_matrix(true, said, classes), [str(c) for c in range(classes)], "test")
    return {name: getattr(scores, name) for name in SCORES}


def gaps(first: list[list[tuple[int, int]]], second: list[list[tuple[int, int]]]) -> list[float]:
    here, there = scored(first), scored(second)
    return [there[name] - here[name] for name in SCORES]


@pytest.fixture(scope="module")
def pair() -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """Two models, of which the second is a little better."""
    return columns(dialogues=8, seed=1), columns(dialogues=8, seed=3, right=0.72)


@pytest.fixture(scope="module")
def found(pair: tuple[dict[str, list[Any]], dict[str, list[Any]]]) -> Comparison:
    return compare(stored(pair[0]), stored(pair[1]), names=("a", "b"))


def test_scores_and_differences_are_those_of_all_utterances(
    pair: tuple[dict[str, list[Any]], dict[str, list[Any]]], found: Comparison
) -> None:
    here, there = (scored(list(by_dialogue(values).values())) for values in pair)
    assert list(found.differences) == list(SCORES)
    for name, gap in found.differences.items():
        assert [gap.first, gap.second] == pytest.approx([here[name], there[name]])
        assert gap.difference == pytest.approx(there[name] - here[name])
    changed = sum(a != b for a, b in zip(pair[0]["prediction"], pair[1]["prediction"], strict=True))
    assert (found.dialogues, found.utterances, found.changed) == (8, len(pair[0]["label"]), changed)
    assert (found.first, found.second, found.synthetic, found.rounds) == ("a", "b", False, 10_000)


def test_bootstrap_equals_drawing_dialogues_one_by_one(
    pair: tuple[dict[str, list[Any]], dict[str, list[Any]]], found: Comparison
) -> None:
    first, second = (list(by_dialogue(values).values()) for values in pair)
    random, drawn = np.random.RandomState(99), []
    for _ in range(2000):
        chosen = random.randint(8, size=8)
        drawn.append(gaps([first[d] for d in chosen], [second[d] for d in chosen]))
    for s, gap in enumerate(found.differences.values()):
        column = np.array(drawn)[:, s]
        assert [gap.interval.low, gap.interval.high] == pytest.approx(np.quantile(column, [0.025, 0.975]), abs=0.012)
        sides = min((column <= 1e-9).mean(), (column >= -1e-9).mean())
        assert gap.p_bootstrap == pytest.approx(min(1, 2 * sides), abs=0.03)
        assert (gap.interval.level, gap.interval.resamples) == (0.95, 10_000)


def test_randomisation_equals_all_swaps(
    pair: tuple[dict[str, list[Any]], dict[str, list[Any]]], found: Comparison
) -> None:
    models = [list(by_dialogue(values).values()) for values in pair]
    everything = np.array(
        [
            gaps([models[s][d] for d, s in enumerate(way)], [models[1 - s][d] for d, s in enumerate(way)])
            for way in itertools.product((0, 1), repeat=8)
        ]
    )
    for s, gap in enumerate(found.differences.values()):
        exact = (np.abs(everything[:, s]) >= abs(gap.difference) - 1e-9).mean()
        assert gap.p_randomisation == pytest.approx(exact, abs=0.02)


def test_identical_predictions_do_not_differ() -> None:
    same = compare(predictions(), predictions())
    for gap in same.differences.values():
        assert (gap.difference, gap.interval.low, gap.interval.high) == (0, 0, 0)
        assert (gap.p_bootstrap, gap.p_randomisation) == (1, 1)
    assert same.changed == 0
    text = verdict(same)
    assert text.startswith("No difference that 31 dialogues could show: the second minus the first is +0.0000 weighted")
    assert text.endswith(" F1 (95 % interval 0.0000 to 0.0000, p = 1.0000).")


def test_a_planted_difference_is_found_in_either_order() -> None:
    worse, better = predictions(right=0.55), predictions(right=0.75, seed=5)
    there = compare(worse, better, names=("low@1", "high@2"))
    back = compare(better, worse, names=("high@2", "low@1"))
    for gap in there.differences.values():
        assert gap.interval.low > 0
        assert max(gap.p_bootstrap, gap.p_randomisation) < 0.01
        assert min(gap.p_bootstrap, gap.p_randomisation) > 0
    gap = there.differences["weighted_f1"]
    facts = f"{gap.difference:.4f} weighted F1 (95 % interval {gap.interval.low:.4f} to {gap.interval.high:.4f}, p = "
    for comparison in (there, back):
        assert verdict(comparison).startswith(f"high@2 is better by {facts}")
        assert verdict(comparison).endswith("): more than chance.")
    assert back.differences["macro_f1"].difference == -there.differences["macro_f1"].difference


def test_two_equally_good_models_do_not_differ() -> None:
    comparison = compare(predictions(seed=1), predictions(seed=2))
    assert comparison.changed > 0
    assert comparison.differences["weighted_f1"].p_randomisation > 0.05
    assert "No difference that 31 dialogues could show" in verdict(comparison)


def test_one_dialogue_shows_nothing() -> None:
    # The bootstrap of one dialogue has no width; swapping it only changes the sign.
    comparison = compare(predictions(dialogues=1, right=0.1), predictions(dialogues=1, right=1.0))
    gap = comparison.differences["weighted_f1"]
    assert gap.interval.low == gap.interval.high > 0.5
    assert gap.p_randomisation == 1
    assert verdict(comparison).startswith("No difference that 1 dialogue could show: the second minus the first is +0.")


def test_comparison_is_pinned_and_the_order_of_rows_changes_nothing(found: Comparison) -> None:
    # What was once published must be found again by every later version.
    gap = found.differences["weighted_f1"]
    assert [gap.interval.low, gap.interval.high] == pytest.approx(PINNED[:2], abs=1e-12)
    assert [gap.p_bootstrap, gap.p_randomisation] == pytest.approx(PINNED[2:], abs=1e-12)
    values, other = columns(dialogues=8, seed=1), stored(columns(dialogues=8, seed=3, right=0.72))
    order = np.random.RandomState(0).permutation(len(values["label"]))
    shuffled = {name: [column[i] for i in order] for name, column in values.items()}
    assert compare(stored(shuffled), other, names=("a", "b")) == found
    assert compare(stored(values), other, names=("a", "b"), seed=1) != found


def test_what_an_evaluation_writes_can_be_compared() -> None:
    split = split_of({"d0": 2, "d1": 1})
    labels, right = np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]], np.float32)
    data, other = (predictions_file(split, labels, chances) for chances in (right, 1 - right))
    gap = compare(data, other, rounds=1500).differences["accuracy"]
    assert (gap.first, gap.second, gap.interval.resamples) == (1, 0, 1500)


def without_last(values: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {name: column[:-1] for name, column in values.items()}


def with_label(values: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return values | {"label": [(values["label"][0] + 1) % 3, *values["label"][1:]]}


def renamed(values: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return values | {"dialogue_id": [f"x{name}" for name in values["dialogue_id"]]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_last, r"first differ where m@1 has dialogue d1, utterance \d+, label \d and m@2 has nothing"),
        (
            with_label,
            r"has dialogue d0, utterance 0, label \d and m@2 has dialogue d0, utterance 0, label \d",
        ),
        (
            renamed,
            r"dialogue d0, utterance 0, .* m@2 has dialogue xd0, .* Compare models of one dataset and test split",
        ),
    ],
)
def test_other_utterances_are_refused(
    change: Callable[[dict[str, list[Any]]], dict[str, list[Any]]], message: str
) -> None:
    values = columns(dialogues=2)
    with pytest.raises(DataError, match=message):
        compare(stored(values), stored(change(values)), names=("m@1", "m@2"))
    with pytest.raises(DataError, match="tested on the same utterances with the same labels"):
        compare(stored(change(values)), stored(values))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (predictions(dialogues=2, classes=4), "the first knows 3 and the second 4. Compare models of one label set"),
        (b"no parquet", "predictions of the second must be a Parquet file, but are not"),
        (stored({"label": [1]}), "but lack dialogue_id, utterance_index, prediction, probabilities"),
        (stored({name: column[:0] for name, column in columns().items()}), "must hold an utterance or more"),
        (stored(columns(dialogues=2) | {"prediction": [3] * len(columns(dialogues=2)["label"])}), "from 0 to 2, but"),
    ],
)
def test_other_files_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        compare(predictions(dialogues=2), data)
