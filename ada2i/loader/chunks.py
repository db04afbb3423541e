"""Decoded shards of a split, held all at once: what a small split needs. ``stream`` holds the shards of a large one.

Shape letters in this file:
    S shards of the split     W width of a modality's vectors
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ada2i.loader.decoded import Chunk
from ada2i.loader.statistics import Sums, block_sums
from ada2i.modalities import Modality

Windows = Mapping[str, npt.NDArray[np.int64]]  # by name, shards that are shuffled together


class Chunks(Protocol):
    """Decoded shards, by their place in the split."""

    def __getitem__(self, shard: int) -> Chunk:
        """Return a shard."""

    def need(self, windows: Windows) -> None:
        """Say which windows are needed now, and which soon, in this order; others may go."""

    def sums(self, modality: Modality) -> Iterator[Sums]:
        """Yield the sums of a modality's vectors by blocks, shard for shard; all workers must ask alike."""


@dataclass(frozen=True)
class InMemoryShards:
    """All shards of a split, memory-mapped."""

    shards: Sequence[Chunk]

    def __getitem__(self, shard: int) -> Chunk:
        return self.shards[shard]

    def need(self, windows: Windows) -> None:
        """All windows are here."""

    def sums(self, modality: Modality) -> Iterator[Sums]:
        """See ``Chunks``."""
        return (block_sums(chunk.features[modality], chunk.present[modality]) for chunk in self.shards)
