"""Scores of predicted numbers of sentiment, by the definitions of MMSA (thuiar/MMSA, ``utils/metricsTop.py``).

Shape letters in this file:
    N utterances     C classes
"""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ada2i.errors import DataError
from ada2i.records import RegressionScores

Floats = NDArray[np.float32]

SIGNS = ("negative", "neutral", "positive")
_CLASSES = (SIGNS, ("negative", "positive"), ("negative", "non-negative"))
_BOUNDS = {2: (0.0,), 3: (-0.1, 0.1), 5: (-0.7, -0.1, 0.1, 0.7)}  # of CH-SIMS: a class includes its upper bound


def check_labels(labels: Sequence[str], uri: str) -> None:
    """Refuse labels other than those of a number's sign, from negative to positive.

    Raises:
        DataError: The labels are others.
    """
    if tuple(name.lower() for name in labels) not in _CLASSES:
        allowed = "; or ".join(", ".join(names) for names in _CLASSES)
        raise DataError(
            f"The labels of {uri} must be {allowed}, in this order, for `task=regression`, but are "
            f"{', '.join(labels)}. Import the table without the column `label`: the sign of `target` then gives it.",
            uri=uri,
            field="label",
        )


def regression_scores(values: ArrayLike, targets: ArrayLike, dataset: str) -> RegressionScores:
    """Score predicted values; utterances whose target is NaN do not count.

    Args:
        values: ``(N,)``.
        targets: ``(N,)``.
        dataset: Name of the dataset: with the word ``sims``, values are in [-1, 1] and cut into the classes of CH-SIMS.

    Raises:
        DataError: No utterance has a target.
    """
    guess, truth = np.asarray(values, np.float32), np.asarray(targets, np.float32)
    known = np.isfinite(truth)
    guess, truth = guess[known], truth[known]
    if not len(truth):
        raise DataError("The split must hold utterances with a target to be scored, but holds none. Check `target`.")
    if is_sims(dataset):
        return _sims(np.clip(guess, -1, 1), np.clip(truth, -1, 1))
    zero = truth == 0
    return RegressionScores(
        utterances=len(truth),
        mae=_mae(guess, truth),
        correlation=_correlation(guess, truth),
        acc2=_accuracy(guess >= 0, truth >= 0),
        f1=_weighted_f1(guess >= 0, truth >= 0),
        acc2_nonzero=None if zero.all() else _accuracy(guess[~zero] > 0, truth[~zero] > 0),
        f1_nonzero=None if zero.all() else _weighted_f1(guess[~zero] > 0, truth[~zero] > 0),
        acc5=_rounded_accuracy(guess, truth, 2),
        acc7=_rounded_accuracy(guess, truth, 3),
    )


def is_sims(dataset: str) -> bool:
    """Return whether a dataset's scores are those of CH-SIMS, from -1 to 1."""
    return "sims" in re.split(r"[^a-z0-9]+", dataset.lower())


def _sims(guess: Floats, truth: Floats) -> RegressionScores:
    cut = {}
    for classes, bounds in _BOUNDS.items():
        edges = np.array(bounds, np.float32)
        cut[classes] = [np.searchsorted(edges, values, side="left") for values in (guess, truth)]
    return RegressionScores(
        utterances=len(truth),
        mae=_mae(guess, truth),
        correlation=_correlation(guess, truth),
        acc2=_accuracy(*cut[2]),
        f1=_weighted_f1(*cut[2]),
        acc3=_accuracy(*cut[3]),
        acc5=_accuracy(*cut[5]),
    )


def _mae(guess: Floats, truth: Floats) -> float:
    return float(np.abs(guess.astype(np.float64) - truth).mean())


def _correlation(guess: Floats, truth: Floats) -> float | None:
    """Return Pearson's correlation; None if one of the two is constant."""
    if np.ptp(guess) == 0 or np.ptp(truth) == 0:
        return None
    return float(np.corrcoef(guess.astype(np.float64), truth.astype(np.float64))[0, 1])


def _rounded_accuracy(guess: Floats, truth: Floats, most: int) -> float:
    # Halves round to even, as in MMSA.
    return _accuracy(np.round(np.clip(guess, -most, most)), np.round(np.clip(truth, -most, most)))


def _accuracy(guess: NDArray[np.generic], truth: NDArray[np.generic]) -> float:
    return float(np.mean(guess == truth))


def _weighted_f1(guess: NDArray[np.generic], truth: NDArray[np.generic]) -> float:
    """Return F1 of two classes, weighted by their true utterances."""
    total = 0.0
    for name in np.unique(truth):
        hits = np.sum((guess == name) & (truth == name))
        support = np.sum(truth == name)
        total += float(support * 2 * hits / (np.sum(guess == name) + support))
    return total / len(truth)
