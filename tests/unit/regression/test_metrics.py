"""Scores of predicted numbers against a second implementation, utterance by utterance, of MMSA's definitions."""

import math
from fractions import Fraction

import numpy as np
import pytest

from ada2i.errors import DataError
from ada2i.evaluation.regression import is_sims, regression_scores

Values = list[float]


def half_even(value: float) -> int:
    """Round by exact arithmetic: a half goes to the even neighbour."""
    low = math.floor(value)
    rest = Fraction(value) - low
    up = rest > Fraction(1, 2) or (rest == Fraction(1, 2) and low % 2)
    return low + bool(up)


def share(pairs: list[tuple[int, int]]) -> float | None:
    return sum(a == b for a, b in pairs) / len(pairs) if pairs else None


def f1(pairs: list[tuple[int, int]]) -> float | None:
    """Weighted F1 from precision and recall of each class; pairs of prediction and truth."""
    if not pairs:
        return None
    total = 0.0
    for name in {truth for _, truth in pairs}:
        hits = sum(a == b == name for a, b in pairs)
        precision = hits / max(1, sum(a == name for a, _ in pairs))
        recall = hits / sum(b == name for _, b in pairs)
        total += (2 * precision * recall / (precision + recall) if hits else 0.0) * sum(b == name for _, b in pairs)
    return total / len(pairs)


def correlation(first: Values, second: Values) -> float | None:
    a, b = (math.fsum(x) / len(x) for x in (first, second))
    covariance = math.fsum((x - a) * (y - b) for x, y in zip(first, second, strict=True))
    spread = math.fsum((x - a) ** 2 for x in first) * math.fsum((y - b) ** 2 for y in second)
    return covariance / math.sqrt(spread) if len(set(first)) > 1 and len(set(second)) > 1 else None


def rounded(pairs: list[tuple[float, float]], most: int) -> float | None:
    return share([tuple(half_even(min(max(x, -most), most)) for x in pair) for pair in pairs])  # type: ignore[misc]


def expected(guess: Values, truth: Values) -> dict[str, float | None]:
    pairs = list(zip(guess, truth, strict=True))
    signs = [(int(a >= 0), int(b >= 0)) for a, b in pairs]
    clear = [(int(a > 0), int(b > 0)) for a, b in pairs if b != 0]
    return {
        "mae": math.fsum(abs(a - b) for a, b in pairs) / len(pairs),
        "correlation": correlation(guess, truth),
        "acc2": share(signs),
        "f1": f1(signs),
        "acc2_nonzero": share(clear),
        "f1_nonzero": f1(clear),
        "acc3": None,
        "acc5": rounded(pairs, 2),
        "acc7": rounded(pairs, 3),
    }


def expected_sims(guess: Values, truth: Values) -> dict[str, float | None]:
    guess, truth = ([min(max(x, -1.0), 1.0) for x in values] for values in (guess, truth))
    pairs = list(zip(guess, truth, strict=True))

    def cut(*bounds: float) -> list[tuple[int, int]]:
        edges = [float(np.float32(bound)) for bound in bounds]
        return [tuple(sum(x > edge for edge in edges) for x in pair) for pair in pairs]  # type: ignore[misc]

    return {
        "mae": math.fsum(abs(a - b) for a, b in pairs) / len(pairs),
        "correlation": correlation(guess, truth),
        "acc2": share(cut(0)),
        "f1": f1(cut(0)),
        "acc2_nonzero": None,
        "f1_nonzero": None,
        "acc3": share(cut(-0.1, 0.1)),
        "acc5": share(cut(-0.7, -0.1, 0.1, 0.7)),
        "acc7": None,
    }


RANDOM = np.random.default_rng(5)
CASES = {
    "random": (RANDOM.normal(0, 2, 300), np.round(RANDOM.normal(0, 2, 300) * 5) / 5),
    "fine": (RANDOM.uniform(-1, 1, 500), np.round(RANDOM.uniform(-1, 1, 500) * 5) / 5),
    "equal predictions": (np.full(20, 0.3), RANDOM.normal(size=20)),
    "equal targets": (RANDOM.normal(size=9), np.full(9, -1.0)),
    "no zeros": ([0.2, -0.4, 1.0, 0.0], [1.0, -1.0, -2.0, 3.0]),
    "all zeros": ([0.2, -0.4, 0.0], [0.0, 0.0, 0.0]),
    "one": ([0.7], [0.4]),
    "one zero": ([-0.7], [0.0]),
    "halves": ([0.5, 1.5, 2.5, -0.5, -1.5, -2.5], [0.0, 2.0, 2.0, -1.0, -2.0, -3.0]),
    "targets of halves": ([0.0, 1.0, 2.0, 3.0, -1.0], [0.5, 1.5, 2.5, 2.5, -0.5]),
    "beyond": ([3.4, -9.0, 3.6, 2.6, 50.0], [3.0, -3.0, 4.0, 3.5, -3.2]),
    "bounds": ([0.1, -0.1, 0.7, -0.7, 0.0, 1.0, -1.0], [0.1, -0.1, 0.7, -0.7, 0.0, 0.2, -0.2]),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dataset", ["mosi", "sims"])
def test_scores_are_those_of_a_second_implementation(name: str, dataset: str) -> None:
    guess, truth = (np.asarray(x, np.float32) for x in CASES[name])
    found = regression_scores(guess, truth, dataset).model_dump(exclude={"utterances"})
    known = (expected_sims if dataset == "sims" else expected)(guess.tolist(), truth.tolist())
    assert found.keys() == known.keys()
    for score, value in known.items():
        assert found[score] == (value if value is None else pytest.approx(value, abs=1e-6)), score


def test_utterances_without_a_target_do_not_count() -> None:
    found = regression_scores([1.0, 9.0, -1.0], [1.5, np.nan, -1.0], "mosi")
    assert (found.utterances, found.mae) == (2, 0.25)
    with pytest.raises(DataError, match="must hold utterances with a target"):
        regression_scores([1.0], [np.nan], "mosi")


@pytest.mark.parametrize(("name", "sims"), [("sims", True), ("ch-sims-v2", True), ("mosi", False), ("simsala", False)])
def test_scores_of_sims_are_chosen_by_a_word_of_the_name(name: str, sims: bool) -> None:
    assert is_sims(name) is sims
