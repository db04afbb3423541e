"""Calibration: whether a model is right as often as it is confident, and the temperature that makes it so.

Shape letters in this file:
    N utterances     C classes     B bins
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ada2i.errors import DataError
from ada2i.evaluation.metrics import check_classes
from ada2i.records import ReliabilityBin, RiskPoint

BINS = 15
THRESHOLDS = tuple(step / 20 for step in range(20))  # confidences at which risk and coverage are measured
_LARGEST = 20.0  # a temperature is at most this, and at least its inverse
_HALVINGS = 40


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = BINS) -> float:
    """Return the mean distance between confidence and accuracy, over bins of confidence.

    The definition is that of Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017,
    equation 3: the confidence of an utterance is the probability of its predicted class, the first of the largest;
    bin b of B holds the utterances with confidence in (b/B, (b+1)/B]; the error is the sum over bins of (share of the
    utterances in the bin) * |accuracy in the bin - mean confidence in the bin|. 0: as sure as right; 1: sure and wrong.

    Args:
        probabilities: ``(N, C)`` floats from 0 to 1, a row per utterance.
        labels: ``(N,)`` integers below C, the true classes.
        bins: The number of bins B, of equal width.

    Raises:
        DataError: The shapes do not match, there is no utterance, or a value is no probability or no class.
    """
    confidence, right = _checked(probabilities, labels)
    # In a bin, count * |accuracy - confidence| is the distance of two sums, so no bin needs its count.
    gaps = np.bincount(_bins(confidence, bins), weights=right - confidence, minlength=bins)  # (N,) -> (B,)
    return float(np.abs(gaps).sum() / len(confidence))


def reliability(probabilities: ArrayLike, labels: ArrayLike, bins: int = BINS) -> tuple[ReliabilityBin, ...]:
    """Return the bins of ``expected_calibration_error``, which also describes arguments and errors; no empty ones."""
    confidence, right = _checked(probabilities, labels)
    where = _bins(confidence, bins)
    return tuple(
        ReliabilityBin(
            utterances=int((where == place).sum()),
            confidence=float(confidence[where == place].mean()),
            accuracy=float(right[where == place].mean()),
        )
        for place in np.unique(where)
    )


def risk_coverage(
    probabilities: ArrayLike, labels: ArrayLike, thresholds: Sequence[float] = THRESHOLDS
) -> tuple[RiskPoint, ...]:
    """Return the share of utterances whose confidence reaches a threshold, and the share of errors among these.

    Arguments and errors are those of ``expected_calibration_error``; thresholds that no utterance reaches are left out.
    """
    confidence, right = _checked(probabilities, labels)
    kept = ((threshold, confidence >= threshold) for threshold in thresholds)
    return tuple(
        RiskPoint(min_confidence=threshold, coverage=float(at.mean()), risk=float(1 - right[at].mean()))
        for threshold, at in kept
        if at.any()
    )


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Return the temperature T at which softmax(logits / T) has the lowest mean negative log-likelihood.

    The method is that of Guo et al. (see ``expected_calibration_error``), section 4.2: one number for all classes, so
    that no order of classes changes. The likelihood is convex in 1 / T, so halving an interval finds its minimum.

    Args:
        logits: ``(N, C)`` floats.
        labels: ``(N,)`` integers below C, the true classes, of dialogues that the model was not fitted to.

    Returns:
        A number from 0.05 to 20; 1 without utterances.

    Raises:
        DataError: The shapes do not match, a label is no class, or a logit is not finite.
    """
    raw, true = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if raw.ndim != 2 or true.shape != raw.shape[:1] or not np.isfinite(raw).all():
        raise DataError(
            "A temperature needs finite logits of shape (utterances, classes) and a label for each utterance, but got "
            f"shapes {raw.shape} and {true.shape}, or values that are not finite. Pass one row per label."
        )
    if not len(true):
        return 1.0
    check_classes("Labels", true, raw.shape[1])
    shifted = raw - raw.max(axis=1, keepdims=True)
    own = shifted[np.arange(len(true)), true]  # (N,)

    def slope(log: float) -> float:
        """Return the derivative of the mean negative log-likelihood by 1 / T, which grows with 1 / T."""
        weights = np.exp(shifted * math.exp(log))  # (N, C)
        return float(((weights * shifted).sum(axis=1) / weights.sum(axis=1) - own).mean())

    low, high = -math.log(_LARGEST), math.log(_LARGEST)  # of log(1 / T)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return math.exp(-(low + high) / 2)


def _bins(confidence: NDArray[np.float64], bins: int) -> NDArray[np.intp]:
    return np.digitize(confidence, np.arange(1, bins) / bins, right=True)


def _checked(probabilities: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the confidence of each utterance, and whether its predicted class is right, ``(N,)`` each."""
    chances, true = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if chances.ndim != 2 or not chances.size or true.shape != chances.shape[:1]:
        raise DataError(
            "Calibration needs probabilities of shape (utterances, classes), of one utterance or more, and a label for "
            f"each, but got shapes {chances.shape} and {true.shape}. Pass one row per label."
        )
    check_classes("Labels", true, chances.shape[1])
    if not ((chances >= 0) & (chances <= 1 + 1e-6)).all():  # also false for NaN
        raise DataError("Probabilities must be numbers from 0 to 1, but some are not. Pass the softmax of the logits.")
    return chances.max(axis=1), chances.argmax(axis=1) == true
