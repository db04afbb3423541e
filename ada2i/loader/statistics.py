"""Means and standard deviations of features, from sums over blocks of rows.

The sums are added in a fixed order, whichever rank computed them.

Shape letters in this file:
    n rows of a shard     K blocks of a shard     W width of a modality's vectors
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

_ROWS = 4096  # rows of a block: a few megabytes

Sums = npt.NDArray[np.float64]  # (K, 1 + 2 W): vectors, their sum, the sum of their squares


def block_sums(values: npt.NDArray[np.float32], present: npt.NDArray[np.bool_]) -> Sums:
    """Sum the ``(n, W)`` vectors of a shard, if present, by blocks."""
    width = values.shape[1]
    sums = np.zeros((-(-len(values) // _ROWS), 1 + 2 * width))
    for block, start in enumerate(range(0, len(values), _ROWS)):
        rows = values[start : start + _ROWS][present[start : start + _ROWS]].astype(np.float64)
        sums[block, 0] = len(rows)
        sums[block, 1 : 1 + width] = rows.sum(axis=0)
        sums[block, 1 + width :] = (rows**2).sum(axis=0)
    return sums


def mean_and_deviation(shards: Iterable[Sums]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return mean and deviation, ``(W,)`` each, from the sums of all shards, in the order of the split."""
    total = np.zeros(1)
    for sums in shards:
        for block in sums:  # one after the other: the distribution of shards must not change a bit
            total = total + block
    count = max(total[0], 1.0)
    mean, square = (half / count for half in np.split(total[1:], 2))
    variance = np.maximum(square - mean**2, 0)
    variance[variance <= 1e-12 * mean**2] = 0.0  # rounding error of a constant
    return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)
