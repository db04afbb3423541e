"""Means and standard deviations of features, from sums over blocks of rows.

The sums are added in a fixed order, whichever rank computed them. Those of whole splits are kept next to the feature
set, so that no training reads the set for them.

Shape letters in this file:
    n rows of a shard     K blocks of a shard     W width of a modality's vectors
"""

from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt

from ada2i import storage
from ada2i.data.manifest import FeatureSet
from ada2i.errors import AccessError, DataError, NotFoundError
from ada2i.modalities import Modality
from ada2i.records import Record, Sha256

STATISTICS = "statistics-1.json"

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


class Statistics(Record):
    """The sums of a feature set's vectors by split and modality: ``(1 + 2 W,)`` little-endian float64 as base64."""

    schema_version: Literal[1] = 1
    fingerprint: str
    content: Sha256  # ``Manifest.content`` of the set
    sums: dict[str, dict[Modality, str]]


def put_statistics(features: FeatureSet, sums: Mapping[str, Mapping[Modality, Sums]]) -> None:
    """Keep the ``(1 + 2 W,)`` sums of all splits next to a feature set."""
    texts = {
        split: {m: b64encode(total.astype("<f8").tobytes()).decode() for m, total in found.items()}
        for split, found in sums.items()
    }
    record = Statistics(fingerprint=features.manifest.fingerprint, content=features.manifest.content, sums=texts)
    # Without this object, also after a crash before this write, each training computes the sums.
    storage.put(storage.join(features.uri, STATISTICS), record.stored())


def stored_sums(features: FeatureSet, split: str) -> dict[Modality, Sums]:
    """Return the ``(1, 1 + 2 W)`` sums of a split that are kept next to a feature set; nothing if there are none."""
    try:
        record = Statistics.load(storage.join(features.uri, STATISTICS))
    except (NotFoundError, AccessError, DataError):  # S3 answers 403 if listing is forbidden
        return {}
    if (record.fingerprint, record.content) != (features.manifest.fingerprint, features.manifest.content):
        return {}
    found = {m: np.frombuffer(b64decode(text), "<f8")[None] for m, text in record.sums.get(split, {}).items()}
    widths = features.manifest.widths
    return {m: sums for m, sums in found.items() if sums.shape[1] == 1 + 2 * widths.get(m, 0)}
