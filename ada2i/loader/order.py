"""The dialogues of each global batch, and of each rank's share of it.

Both are pure functions: the order depends on (seed, epoch) and on the shards' sizes, never on the number of workers, so
any run can resume on any number of workers. A split is shuffled by windows of whole shards: the shards are shuffled
and cut into windows, and within a window all dialogues are shuffled together. A split that fits into
one window is shuffled as a whole. The mixing function is written out here, since a library's
streams may change between versions.

Shape letters in this file:
    D dialogues of the split     S shards of the split
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Shards:
    """How a split is divided into shards.

    Attributes:
        edges: ``(S + 1,)`` first dialogue of each shard, then ``D``.
        sizes: ``(S,)`` size of each shard, in any unit.
        window: Size of a window, in that unit; a larger shard makes a larger window.
    """

    edges: Ints
    sizes: Ints
    window: float


@dataclass(frozen=True)
class Batch:
    """A global batch.

    Attributes:
        dialogues: Indices into the split.
        windows: First and last window of its dialogues.
    """

    dialogues: list[int]
    windows: tuple[int, int]


@dataclass(frozen=True)
class Order:
    """The global batches of one pass over a split; its length is their number.

    Attributes:
        edges: ``(S + 1,)`` first dialogue of each shard, then ``D``.
        windows: The shards of each window.
        batch_dialogues: Dialogues of a global batch; the last one may have fewer.
        key: ``(1,)`` key by which the dialogues of a window are shuffled; None: they are not shuffled.
    """

    edges: Ints
    windows: tuple[Ints, ...]
    batch_dialogues: int
    key: Keys | None

    def __len__(self) -> int:
        return (int(self.edges[-1]) + self.batch_dialogues - 1) // self.batch_dialogues

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Yield the global batches from a given one on; earlier windows are not read.

        Args:
            start: The first batch's index in the pass, counted from 0.
        """
        size, total = self.batch_dialogues, int(self.edges[-1])
        if start * size >= total:
            return
        window = self._window_of(start * size)
        begin = int(self._ends[window - 1]) if window else 0
        held = self._shuffled(window)[start * size - begin :]  # dialogues that are shuffled but not yet yielded
        for first in range(start * size, total, size):
            while len(held) < min(size, total - first):
                window += 1
                held = np.concatenate([held, self._shuffled(window)])
            yield Batch(held[:size].tolist(), (self._window_of(first), window))
            held = held[size:]

    @cached_property
    def _ends(self) -> Ints:
        """Number of dialogues of the pass up to and including each window."""
        sizes = np.diff(self.edges)
        return np.cumsum([sizes[shards].sum() for shards in self.windows])

    def _window_of(self, position: int) -> int:
        return int(np.searchsorted(self._ends, position, side="right"))

    def _shuffled(self, window: int) -> Ints:
        shards = self.windows[window]
        dialogues = np.concatenate([np.arange(self.edges[s], self.edges[s + 1]) for s in shards])
        if self.key is None:
            return dialogues
        return dialogues[np.argsort(mix(dialogues.astype(np.uint64) ^ self.key), kind="stable")]


def shuffled(shards: Shards, *, batch_dialogues: int, seed: int, epoch: int) -> Order:
    """Return the order of a training epoch.

    Args:
        shards: The split.
        batch_dialogues: Dialogues of a global batch.
        seed: The run's seed.
        epoch: Counted from 1.
    """
    key = mix(mix(np.array([seed], dtype=np.uint64)) ^ np.uint64(epoch))
    sequence = np.argsort(mix(np.arange(len(shards.sizes), dtype=np.uint64) ^ mix(key)), kind="stable")
    # Within one window the shards' order has no effect: every dialogue has its own key.
    return Order(shards.edges, _windows(shards, sequence), batch_dialogues, key)


def in_order(shards: Shards, *, batch_dialogues: int) -> Order:
    """Return the split's own order, which evaluation uses; see ``shuffled``."""
    return Order(shards.edges, _windows(shards, np.arange(len(shards.sizes))), batch_dialogues, None)


def share(batch: Sequence[int], lengths: Ints, ranks: int) -> list[list[int]]:
    """Split a global batch among ranks, evenly by utterances.

    The longest dialogue is assigned first, each to the rank with the fewest utterances so far.

    Args:
        batch: Dialogue indices.
        lengths: ``(D,)`` utterances of every dialogue of the split.
        ranks: Number of ranks.

    Returns:
        For each rank its dialogues, in the order of the batch; empty if there are fewer dialogues than ranks.
    """
    loads = [0] * ranks
    owner: dict[int, int] = {}
    for dialogue in sorted(batch, key=lambda d: -int(lengths[d])):
        rank = loads.index(min(loads))
        loads[rank] += int(lengths[dialogue])
        owner[dialogue] = rank
    return [[d for d in batch if owner[d] == rank] for rank in range(ranks)]


def _windows(shards: Shards, sequence: Ints) -> tuple[Ints, ...]:
    """Cut a sequence of shards into windows; each takes as many shards as fit, and at least one."""
    starts, filled = [0], 0
    for place, size in enumerate(shards.sizes[sequence].tolist()):
        if place > starts[-1] and filled + size > shards.window:
            starts.append(place)
            filled = 0
        filled += size
    return tuple(np.split(sequence, starts[1:]))


def mix(keys: Keys) -> Keys:
    """SplitMix64's finaliser (Steele, Lea, Flood 2014): maps neighbouring keys to unrelated keys."""
    keys = keys + np.uint64(0x9E3779B97F4A7C15)
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))
