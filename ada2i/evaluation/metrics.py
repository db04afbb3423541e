"""Scores from confusion counts, and their uncertainty.

All scores of a split are derived from one table of counts: ranks sum counts and divide once, so scores are consistent.

Shape letters in this file:
    N utterances     C classes     D dialogues     R bootstrap resamples
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ada2i.errors import DataError
from ada2i.records import ClassRow, Interval, MissingScore, Scores, Summary, TestResult

Counts = NDArray[np.int64]
Numbers = NDArray[np.float64]

HEADLINES = ("weighted_f1", "macro_f1", "accuracy")  # fields of ``Scores`` that are summarised over seeds


def confusion_matrix(labels: ArrayLike, predictions: ArrayLike, classes: int) -> Counts:
    """Count utterances by true and predicted class.

    Args:
        labels: ``(N,)`` integers below ``classes``, the true classes.
        predictions: ``(N,)`` integers below ``classes``.
        classes: The number of classes C.

    Returns:
        ``(C, C)`` int64; row: true class, column: predicted class.

    Raises:
        DataError: The two differ in length, or a value is no class.
    """
    true, predicted = np.asarray(labels), np.asarray(predictions)
    if true.ndim != 1 or true.shape != predicted.shape:
        raise DataError(
            "Labels and predictions must be two lists of one length, but have shapes "
            f"{true.shape} and {predicted.shape}. Pass one prediction per label."
        )
    for name, values in (("Labels", true), ("Predictions", predicted)):
        check_classes(name, values, classes)
    cells = true.astype(np.int64) * classes + predicted.astype(np.int64)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def scores(confusion: Counts, labels: Sequence[str], split: str) -> Scores:
    """Derive all scores of a split from its confusion counts.

    The definitions are scikit-learn's with ``labels=range(C)`` and ``zero_division=0``. Of a class with ``hits``
    correct utterances: precision = hits / predicted, recall = hits / support, F1 = 2 hits / (predicted + support),
    each 0 if its divisor is 0. Weighted F1 is the mean by support; macro F1 the plain mean over all C classes,
    including those without utterances; accuracy is the share of correct utterances.

    Args:
        confusion: ``(C, C)`` counts; row: true class, column: predicted class.
        labels: The C class names, in the order of the rows.
        split: Name of the split, such as ``test``.

    Raises:
        DataError: The counts are no square of the labels' number, or there is no utterance.
    """
    if confusion.shape != (len(labels), len(labels)):
        raise DataError(
            f"Confusion counts of {len(labels)} labels must have shape {(len(labels),) * 2}, but have "
            f"{confusion.shape}. Count with the labels of the features."
        )
    utterances = int(confusion.sum())
    if utterances == 0:
        raise DataError(
            f"Split `{split}` must hold utterances to be scored, but holds none. Check the splits.", split=split
        )
    f1 = f1_by_class(confusion)
    return Scores(
        split=split,
        utterances=utterances,
        weighted_f1=float(weighted_f1(confusion)),
        macro_f1=float(f1.mean()),
        accuracy=float(np.trace(confusion) / utterances),
        classes=_class_rows(confusion, f1, labels),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
    )


def by_dialogue(labels: Counts, predictions: Counts, lengths: Counts, classes: int) -> Counts:
    """Return confusion counts of each dialogue, ``(D, C, C)``; utterances without a label do not count.

    Args:
        labels: ``(N,)`` class indices, negative without a label.
        predictions: ``(N,)`` class indices.
        lengths: ``(D,)`` utterances of each dialogue.
        classes: ``C``.
    """
    edges = np.cumsum(lengths)[:-1]
    pairs = zip(np.split(labels, edges), np.split(predictions, edges), strict=True)
    return np.stack([confusion_matrix(truth[truth >= 0], guess[truth >= 0], classes) for truth, guess in pairs])


def dialogue_bootstrap(
    confusion_by_dialogue: Counts, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Return an interval of weighted F1 by resampling dialogues, since utterances of a dialogue are not independent.

    A percentile bootstrap; the same arguments give the same interval on every machine, up to rounding.

    Args:
        confusion_by_dialogue: ``(D, C, C)`` counts, one table per dialogue.
        resamples: Number of sets of D dialogues that are drawn, with replacement.
        level: Share of the resamples inside the interval.
        seed: Seed of the draws.

    Raises:
        DataError: There are no dialogues, or the shape is wrong.
    """
    shape = confusion_by_dialogue.shape
    if len(shape) != 3 or shape[0] == 0 or shape[1] != shape[2]:
        raise DataError(
            "The bootstrap needs confusion counts of shape (dialogues, classes, classes), of one dialogue or more, "
            f"but got {shape}. Check that the split holds dialogues."
        )
    dialogues, classes, _ = shape
    # RandomState's streams never change; those of default_rng may change between versions of numpy.
    draws = np.random.RandomState(seed).multinomial(dialogues, np.full(dialogues, 1 / dialogues), size=resamples)
    flat = confusion_by_dialogue.reshape(dialogues, classes * classes)
    # Floats for the fast product; counts below 2**53 stay exact.
    totals = draws.astype(np.float64) @ flat.astype(np.float64)  # (R, D) @ (D, C*C) -> (R, C*C)
    drawn = weighted_f1(totals.reshape(resamples, classes, classes))  # (R, C, C) -> (R,)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(low=float(low), high=float(high), level=level, resamples=resamples)


def summary(values: Sequence[float]) -> Summary:
    """Return mean and sample deviation (n - 1) of a score over seeds; a single value has no deviation.

    Raises:
        DataError: There are no values.
    """
    if not values:
        raise DataError("A summary needs one value or more, but got none. Evaluate a seed first.")
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Summary(mean=float(np.mean(values)), sd=deviation, values=tuple(values))


def over_seeds(tests: Sequence[TestResult]) -> dict[str, Summary]:
    """Return ``RunResult.test_summary``: ``HEADLINES`` and the regression scores of all seeds, over seeds."""
    found = {name: summary([getattr(test.scores, name) for test in tests]) for name in HEADLINES}
    numbers = [test.regression.numbers() if test.regression else {} for test in tests]
    shared = [name for name in numbers[0] if all(name in seed for seed in numbers)]
    return found | {name: summary([seed[name] for seed in numbers]) for name in shared}


def area(found: Sequence[MissingScore]) -> float:
    """Return the area under weighted F1 over the rates of missing vectors, divided by the rates' range.

    Raises:
        DataError: There are fewer than two rates.
    """
    points = sorted((score.rate, score.weighted_f1) for score in found if score.rate is not None)
    if len(points) < 2:
        raise DataError("The area needs scores at two missing rates or more. Evaluate the run again.")
    rates, values = np.array(points).T
    return float(np.trapezoid(values, rates) / (rates[-1] - rates[0]))


def check_classes(name: str, values: NDArray[np.generic], classes: int) -> None:
    """Refuse values that are not class indices.

    Raises:
        DataError: A value is not an integer from 0 to ``classes - 1``.
    """
    wanted = f"{name} must be integers from 0 to {classes - 1}"
    if values.size and not np.issubdtype(values.dtype, np.integer):
        raise DataError(f"{wanted}, but are {values.dtype}. Pass class indices.")
    if values.size and (values.min() < 0 or values.max() >= classes):
        raise DataError(f"{wanted}, but range from {values.min()} to {values.max()}. Check the label set.")


def _class_rows(confusion: Counts, f1: Numbers, labels: Sequence[str]) -> tuple[ClassRow, ...]:
    hits, support, predicted = np.diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    precision, recall = divide(hits, predicted), divide(hits, support)
    return tuple(
        ClassRow(
            label=label,
            precision=float(precision[c]),
            recall=float(recall[c]),
            f1=float(f1[c]),
            support=int(support[c]),
        )
        for c, label in enumerate(labels)
    )


def f1_by_class(confusion: Counts | Numbers) -> Numbers:
    """Return F1 by class, ``(..., C, C)`` counts -> ``(..., C)``."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return divide(2 * hits, confusion.sum(axis=-1) + confusion.sum(axis=-2))


def weighted_f1(confusion: Counts | Numbers) -> Numbers:
    """Return F1 averaged by support, ``(..., C, C)`` counts -> ``(...)``."""
    support = confusion.sum(axis=-1)
    return divide((f1_by_class(confusion) * support).sum(axis=-1), support.sum(axis=-1))


def divide(above: NDArray[np.generic], below: NDArray[np.generic]) -> Numbers:
    """Divide elementwise; 0 if the divisor is 0."""
    above, below = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    quotient = np.zeros_like(above)
    np.divide(above, below, out=quotient, where=below != 0)
    return quotient
