"""Ridge regression onto one-hot labels, in closed form from sums of products: a linear probe that needs no training.

Shape letters in this file:
    D width of the vectors     C classes
"""

import numpy as np
from numpy.typing import NDArray

_RIDGE = 1.0  # per row, on standardised vectors: strong, for there may be more columns than rows

Floats = NDArray[np.float64]


def fit(gram: Floats, cross: Floats) -> Floats:
    """Fit on standardised vectors.

    Args:
        gram: ``(D + 1, D + 1)`` sums of products among columns, the last of which is all 1.
        cross: ``(D + 1, C)`` those with one-hot labels.

    Returns:
        ``(D + 1, C)`` weights for vectors as they are; those of the 1s come last.
    """
    number = gram[-1, -1]
    mean, prior = gram[-1, :-1] / number, cross[-1] / number
    covariance = gram[:-1, :-1] / number - np.outer(mean, mean)
    deviation = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    deviation[deviation <= 1e-6 * np.abs(mean)] = np.inf  # a constant column gets no weight
    deviation[deviation == 0.0] = np.inf
    correlation = covariance / np.outer(deviation, deviation)
    aim = (cross[:-1] / number - np.outer(mean, prior)) / deviation[:, None]
    weights = np.linalg.solve(correlation + _RIDGE * np.eye(len(mean)), aim) / deviation[:, None]
    return np.vstack([weights, prior - mean @ weights])


def weighted_f1(counts: Floats) -> float:
    """Return the weighted F1 of ``(C, C)`` confusion counts, rows being true classes."""
    support = counts.sum(axis=1)
    f1 = 2 * np.diag(counts) / np.maximum(support + counts.sum(axis=0), 1)
    return float(f1 @ support / support.sum())
