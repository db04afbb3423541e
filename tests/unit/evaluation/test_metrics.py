"""Scores against hand-computed examples, a brute-force oracle that goes by single utterances, and their properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ada2i.errors import DataError
from ada2i.evaluation import metrics
from tests.unit.evaluation.runs import build_run

TRUE = [0, 0, 0, 1, 1, 2]
PREDICTED = [0, 0, 1, 1, 2, 2]
COUNTS = np.array([[2, 1, 0], [0, 1, 1], [0, 0, 1]])

Pairs = list[tuple[int, int]]
pairs_of_four = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


def oracle(pairs: Pairs, classes: int) -> dict[str, list[float] | float]:
    """Score utterance by utterance, with precision and recall in F1 rather than counts."""
    precision, recall, f1, support = [], [], [], []
    for c in range(classes):
        hits = sum(true == predicted == c for true, predicted in pairs)
        said = sum(predicted == c for _, predicted in pairs)
        there = sum(true == c for true, _ in pairs)
        p, r = hits / said if said else 0.0, hits / there if there else 0.0
        precision.append(p)
        recall.append(r)
        f1.append(2 * p * r / (p + r) if p + r else 0.0)
        support.append(there)
    weighted = sum(f * n for f, n in zip(f1, support, strict=True)) / len(pairs)
    accuracy = sum(true == predicted for true, predicted in pairs) / len(pairs)
    macro = sum(f1) / classes
    return {"p": precision, "r": recall, "f1": f1, "weighted": weighted, "macro": macro, "accuracy": accuracy}


def count(pairs: Pairs, classes: int = 4) -> metrics.Counts:
    return metrics.confusion_matrix([true for true, _ in pairs], [predicted for _, predicted in pairs], classes)


def weighted_f1(counts: metrics.Counts) -> float:
    return metrics.scores(counts, [str(c) for c in range(len(counts))], "test").weighted_f1


def test_confusion_has_true_classes_in_rows() -> None:
    counts = metrics.confusion_matrix(TRUE, PREDICTED, 3)
    assert counts.dtype == np.int64
    assert counts.tolist() == COUNTS.tolist()


def test_confusion_of_nothing_is_zero() -> None:
    assert metrics.confusion_matrix([], [], 2).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("small", [np.int8, np.uint8])
def test_confusion_of_small_integers_does_not_overflow(small: type[np.integer]) -> None:
    assert metrics.confusion_matrix(np.array([99], small), np.array([98], small), 100)[99, 98] == 1


@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [
        ([0, 1], [0], "must be two lists of one length, but have shapes"),
        ([[0]], [[0]], "must be two lists of one length, but have shapes"),
        ([0, 3], [0, 1], "Labels must be integers from 0 to 2, but range from 0 to 3"),
        ([0, 1], [-1, 1], "Predictions must be integers from 0 to 2, but range from -1 to 1"),
        ([0.0], [0], "Labels must be integers from 0 to 2, but are float64"),
    ],
)
def test_confusion_refuses_what_is_no_class(labels: list[int], predictions: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        metrics.confusion_matrix(labels, predictions, 3)


def test_scores_by_hand() -> None:
    scores = metrics.scores(COUNTS, ["a", "b", "c"], "dev")
    a, b, c = scores.classes
    assert [a.label, b.label, c.label] == ["a", "b", "c"]
    assert [a.support, b.support, c.support] == [3, 2, 1]
    assert [a.precision, b.precision, c.precision] == [1.0, 0.5, 0.5]
    assert [a.recall, b.recall, c.recall] == pytest.approx([2 / 3, 1 / 2, 1])
    assert [a.f1, b.f1, c.f1] == pytest.approx([4 / 5, 1 / 2, 2 / 3])
    assert scores.weighted_f1 == pytest.approx((3 * 4 / 5 + 2 * 1 / 2 + 1 * 2 / 3) / 6)
    assert scores.macro_f1 == pytest.approx((4 / 5 + 1 / 2 + 2 / 3) / 3)
    assert scores.accuracy == pytest.approx(4 / 6)
    assert (scores.split, scores.utterances) == ("dev", 6)
    assert scores.confusion == ((2, 1, 0), (0, 1, 1), (0, 0, 1))


def test_class_without_utterances_and_predictions_counts_in_macro_only() -> None:
    # Definition of scikit-learn's f1_score(labels=range(3), zero_division=0).
    scores = metrics.scores(np.array([[2, 0, 0], [0, 2, 0], [0, 0, 0]]), ["a", "b", "c"], "test")
    assert scores.macro_f1 == pytest.approx(2 / 3)
    assert scores.weighted_f1 == 1.0
    assert scores.classes[2].model_dump() == {"label": "c", "precision": 0, "recall": 0, "f1": 0, "support": 0}


def test_scores_refuse_wrong_shapes_and_no_utterances() -> None:
    with pytest.raises(DataError, match=r"of 2 labels must have shape \(2, 2\), but have \(3, 3\)"):
        metrics.scores(COUNTS, ["a", "b"], "test")
    with pytest.raises(DataError, match="Split `dev` must hold utterances to be scored, but holds none"):
        metrics.scores(np.zeros((2, 2), np.int64), ["a", "b"], "dev")


@settings(deadline=None)  # a loaded machine is no failure
@given(pairs_of_four)
def test_scores_equal_the_oracle(pairs: Pairs) -> None:
    scores, expected = metrics.scores(count(pairs), list("abcd"), "test"), oracle(pairs, 4)
    assert [row.precision for row in scores.classes] == pytest.approx(expected["p"])
    assert [row.recall for row in scores.classes] == pytest.approx(expected["r"])
    assert [row.f1 for row in scores.classes] == pytest.approx(expected["f1"])
    assert scores.weighted_f1 == pytest.approx(expected["weighted"])
    assert scores.macro_f1 == pytest.approx(expected["macro"])
    assert scores.accuracy == pytest.approx(expected["accuracy"])


@given(pairs_of_four, pairs_of_four)
def test_counts_of_parts_add_up(first: Pairs, second: Pairs) -> None:
    assert (count(first) + count(second) == count(first + second)).all()


@given(pairs_of_four, st.permutations(range(4)))
def test_order_of_classes_changes_nothing(pairs: Pairs, order: list[int]) -> None:
    renamed = [(order[true], order[predicted]) for true, predicted in pairs]
    here, there = (metrics.scores(count(some), list("abcd"), "test") for some in (pairs, renamed))
    assert here.weighted_f1 == pytest.approx(there.weighted_f1)
    assert here.macro_f1 == pytest.approx(there.macro_f1)


@settings(deadline=None)  # a loaded machine is no failure
@given(pairs_of_four)
def test_right_predictions_score_one(pairs: Pairs) -> None:
    assert weighted_f1(count([(true, true) for true, _ in pairs])) == pytest.approx(1.0)


def dialogues(number: int = 12, seed: int = 3) -> metrics.Counts:
    random = np.random.RandomState(seed)
    tables = []
    for _ in range(number):
        true = random.randint(3, size=random.randint(5, 30))
        predicted = np.where(random.uniform(size=true.size) < 0.6, true, random.randint(3, size=true.size))
        tables.append(metrics.confusion_matrix(true, predicted, 3))
    return np.stack(tables)


def test_bootstrap_equals_drawing_dialogues_one_by_one() -> None:
    tables, random = dialogues(), np.random.RandomState(99)
    drawn = [weighted_f1(tables[random.randint(len(tables), size=len(tables))].sum(axis=0)) for _ in range(3000)]
    expected = np.quantile(drawn, [0.05, 0.95])
    interval = metrics.dialogue_bootstrap(tables, resamples=20_000, level=0.9)
    assert [interval.low, interval.high] == pytest.approx(expected, abs=0.004)
    assert (interval.level, interval.resamples) == (0.9, 20_000)


def test_bootstrap_is_pinned() -> None:
    # The interval of a stored run must be found again by every later version.
    interval = metrics.dialogue_bootstrap(dialogues())
    assert interval == metrics.dialogue_bootstrap(dialogues())
    assert [interval.low, interval.high] == pytest.approx([0.7217698920029119, 0.8631357951706828], abs=1e-12)
    assert interval != metrics.dialogue_bootstrap(dialogues(), seed=1)


def test_bootstrap_brackets_the_score_and_widens_with_the_level() -> None:
    narrow, wide = (metrics.dialogue_bootstrap(dialogues(), level=level) for level in (0.5, 0.99))
    score = weighted_f1(dialogues().sum(axis=0))
    assert wide.low < narrow.low < score < narrow.high < wide.high


def test_bootstrap_of_one_dialogue_is_its_score() -> None:
    interval = metrics.dialogue_bootstrap(COUNTS[None])
    assert [interval.low, interval.high] == pytest.approx([weighted_f1(COUNTS)] * 2)


@pytest.mark.parametrize("shape", [(0, 3, 3), (3, 3), (2, 3, 2)])
def test_bootstrap_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="of one dialogue or more, but got"):
        metrics.dialogue_bootstrap(np.ones(shape, np.int64))


def test_summary_has_the_sample_deviation() -> None:
    summary = metrics.summary([0.5, 0.7, 0.9])
    assert [summary.mean, summary.sd] == pytest.approx([0.7, 0.2])
    assert summary.values == (0.5, 0.7, 0.9)


def test_summary_of_one_value_has_no_deviation() -> None:
    assert metrics.summary([0.25]).model_dump() == {"mean": 0.25, "sd": None, "values": (0.25,)}


def test_summary_of_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="one value or more, but got none"):
        metrics.summary([])


def test_over_seeds_sums_up_the_headline_scores() -> None:
    tests = build_run().tests
    summaries = metrics.over_seeds(tests)
    assert set(summaries) == {"weighted_f1", "macro_f1", "accuracy"}
    assert summaries["macro_f1"].values == tuple(test.scores.macro_f1 for test in tests)
