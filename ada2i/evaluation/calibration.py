"""Calibration: whether a model is right as often as it is confident.

Shape letters in this file:
    N utterances     C classes     B bins
"""

import numpy as np
from numpy.typing import ArrayLike

from ada2i.errors import DataError
from ada2i.evaluation.metrics import check_classes


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
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
    chances, true = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if chances.ndim != 2 or not chances.size or true.shape != chances.shape[:1]:
        raise DataError(
            "Calibration needs probabilities of shape (utterances, classes), of one utterance or more, and a label for "
            f"each, but got shapes {chances.shape} and {true.shape}. Pass one row per label."
        )
    check_classes("Labels", true, chances.shape[1])
    if not ((chances >= 0) & (chances <= 1 + 1e-6)).all():  # also false for NaN
        raise DataError("Probabilities must be numbers from 0 to 1, but some are not. Pass the softmax of the logits.")
    confidence, right = chances.max(axis=1), chances.argmax(axis=1) == true  # (N, C) -> (N,)
    where = np.digitize(confidence, np.arange(1, bins) / bins, right=True)  # (N,) bins
    # In a bin, count * |accuracy - confidence| is the distance of two sums, so no bin needs its count.
    gaps = np.bincount(where, weights=right - confidence, minlength=bins)  # (N,) -> (B,)
    return float(np.abs(gaps).sum() / len(true))
