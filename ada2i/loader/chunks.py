"""Decoded shards of a small split, all mapped at once; ``stream`` handles a large one.

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

NamedWindows = Mapping[str, npt.NDArray[np.int64]]  # by name, shards that are shuffled together


class Chunks(Protocol):
    """Decoded shards, by their index in the split."""

    def __getitem__(self, shard: int) -> Chunk:
        """Return a shard."""

    def need(self, windows: NamedWindows) -> None:
        """Announce the windows that are needed now and next, in this order; others may be dropped."""

    def node_of(self, shard: int) -> int:
        """Return the number of the machine that decodes a shard in the windows needed now; the same on all ranks."""

    def sums(self, modality: Modality, known: Sums | None = None) -> Iterator[Sums]:
        """Yield the sums of a modality's vectors by blocks, shard by shard; all workers must call it together.

        Args:
            modality: The modality.
            known: The ``(1, 1 + 2 W)`` sums of the whole split, if they are stored; no shard is read then.
        """


@dataclass(frozen=True)
class MappedShards:
    """All shards of a split, memory-mapped."""

    shards: Sequence[Chunk]

    def __getitem__(self, shard: int) -> Chunk:
        return self.shards[shard]

    def need(self, windows: NamedWindows) -> None:
        """Do nothing: all windows are mapped."""

    def node_of(self, shard: int) -> int:  # noqa: ARG002
        """Return 0: each machine maps all shards."""
        return 0

    def sums(self, modality: Modality, known: Sums | None = None) -> Iterator[Sums]:
        """See ``Chunks``."""
        if known is not None:
            return iter([known])
        return (block_sums(chunk.features[modality], chunk.present[modality]) for chunk in self.shards)
