"""Turns feature shards into batches: shards are decoded once per machine, then memory-mapped by all its workers.

Each worker decodes every n-th shard into an Arrow file and maps the files of all workers. Pages are shared, so a
machine holds each value once, for any number of workers. A split that fits into one window of the shuffle is decoded as
a whole, and its files are reused by later runs. A larger split streams: one window of shards is mapped while the next
one is being decoded (``stream``).

Shape letters in this file:
    D dialogues of the split     N utterances of a batch     W width of a modality's vectors
"""

import math
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ada2i import storage
from ada2i.batch import DialogueBatch, Layout
from ada2i.data.entries import ShardEntry
from ada2i.data.manifest import FeatureSet, require_targets
from ada2i.data.schema import Column
from ada2i.loader.chunks import Chunks, MappedShards
from ada2i.loader.decoded import Chunk, cache_folder, cached_file, chunk_of, decode_to_cache, map_table
from ada2i.loader.index import Index, index_of, read_index, write_index
from ada2i.loader.order import Order, Shards, in_order, share, shuffled
from ada2i.loader.statistics import Sums, mean_and_deviation, stored_sums
from ada2i.loader.stream import LocalRanks, Stream, sweep
from ada2i.modalities import Modality
from ada2i.records import UNLABELLED

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pass:
    """One pass over a split; its length is its number of global batches.

    Attributes:
        order: Its batches.
        name: Distinguishes its windows from those of other passes.
        after: Windows that follow it, if known.
    """

    order: Order
    name: str
    chunks: Chunks
    after: Mapping[str, Ints] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.order)

    def batches(self, start: int = 0) -> Iterator[list[int]]:
        """Yield the dialogues of each global batch, as indices into the split; start decoding the next windows.

        Args:
            start: The first batch's index in the pass, counted from 0; earlier ones are not read.
        """
        for batch in self.order.batches(start):
            first, last = batch.windows
            windows = _named(self.name, self.order.windows[first : last + 2], first)
            self.chunks.need(windows if len(windows) > last + 1 - first else {**windows, **self.after})
            yield batch.dialogues
        self.chunks.need(self.after)


@dataclass(frozen=True)
class Values:
    """Columns of utterances, as in ``DialogueBatch``: ``(N, W)`` features, ``(N,)`` others."""

    features: Mapping[Modality, torch.Tensor] = field(default_factory=dict)
    present: Mapping[Modality, torch.Tensor] = field(default_factory=dict)
    labels: torch.Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    speakers: torch.Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    targets: torch.Tensor | None = None

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Values":
        """Return the columns, each changed alike."""
        return Values(
            features={m: change(x) for m, x in self.features.items()},
            present={m: change(x) for m, x in self.present.items()},
            labels=change(self.labels),
            speakers=change(self.speakers),
            targets=None if self.targets is None else change(self.targets),
        )


@dataclass(frozen=True)
class SplitData:
    """All dialogues of a split.

    Attributes:
        index: The dialogues and their shards.
        chunks: Their features.
        shards: Their sizes, in bytes, and the window of the shuffle.
        modalities: The modalities of its features.
        class_counts: ``(classes,)`` labelled utterances of each class.
        targets: Whether its batches hold targets: those of regression.
        stored: Returns the sums of whole vectors that are kept next to the set.
        nodes: Of each rank, the number of its machine.
        node: This rank's machine.
    """

    index: Index
    chunks: Chunks
    shards: Shards
    modalities: tuple[Modality, ...]
    class_counts: Ints
    targets: bool = False
    stored: Callable[[], Mapping[Modality, Sums]] = dict
    nodes: tuple[int, ...] = (0,)
    node: int = 0
    _passes: Iterator[int] = field(default_factory=count)

    @property
    def lengths(self) -> Ints:
        """``(D,)`` utterances of each dialogue."""
        return self.index.lengths

    @property
    def dialogue_ids(self) -> Column:
        """``(D,)`` ids, as Arrow strings."""
        return self.index.ids

    def epoch(self, *, seed: int, epoch: int, batch_dialogues: int) -> Pass:
        """Return a training epoch, counted from 1: the same for any number of workers, from any start."""
        now, then = (
            shuffled(self.shards, batch_dialogues=batch_dialogues, seed=seed, epoch=number)
            for number in (epoch, epoch + 1)
        )
        # The next epoch's first window is decoded while this one ends.
        after = _named(f"{seed}-{epoch + 1}", then.windows[:1], 0)
        return Pass(now, f"{seed}-{epoch}", self.chunks, after)

    def in_order(self, batch_dialogues: int) -> Pass:
        """Return a pass in the split's own order, for evaluation; all workers must make it."""
        now = in_order(self.shards, batch_dialogues=batch_dialogues)
        return Pass(now, f"pass-{next(self._passes)}", self.chunks)

    def shares(self, batch: Sequence[int], ranks: int) -> list[list[int]]:
        """Split a global batch among ranks; if the split streams, each machine's ranks get dialogues of its shards.

        Args:
            batch: Dialogue indices; in a pass over the split, those that it has just yielded.
            ranks: Number of ranks.

        Returns:
            For each rank its dialogues, as ``order.share`` returns them.
        """
        if isinstance(self.chunks, MappedShards) or len(set(self.nodes)) == 1:
            return share(batch, self.lengths, ranks)
        found: list[list[int]] = [[] for _ in range(ranks)]
        nodes = {d: self._node_of(d) for d in batch}
        for node in set(self.nodes):
            members = [rank for rank in range(ranks) if self.nodes[rank] == node]
            local = share([d for d in batch if nodes[d] == node], self.lengths, len(members))
            for rank, own in zip(members, local, strict=True):
                found[rank] = own
        return found

    def _node_of(self, dialogue: int) -> int:
        return self.chunks.node_of(self.index.place(dialogue)[0])

    def batch(self, own: Sequence[int], of: Sequence[int]) -> DialogueBatch:
        """Assemble one rank's share of a global batch.

        Args:
            own: This rank's dialogues; if empty, it borrows one of the batch, uncounted.
            of: All dialogues of the global batch.
        """
        dialogues = own or [next((d for d in of if self._node_of(d) == self.node), of[0])]
        values, speakers = self._values(dialogues)
        everywhere = self.lengths[list(of)]
        lengths = tuple(self.lengths[list(dialogues)].tolist())
        return DialogueBatch(
            features=values.features,
            present=values.present,
            labels=values.labels,
            speakers=values.speakers,
            layout=Layout(lengths, int(everywhere.max()), self.device, speakers=speakers),
            global_utterances=int(everywhere.sum()),
            global_dialogues=len(of),
            counted=bool(own),
            labelled=None if self.all_labelled else int(self._labelled[list(of)].sum()),
            dialogues=tuple(dialogues),
            members=tuple(of),
            targets=values.targets,
            targeted=int(self._targeted[list(of)].sum()) if self.targets else None,
        )

    @property
    def device(self) -> torch.device:
        """Where the tensors of its batches are."""
        return torch.device("cpu")

    def _values(self, dialogues: Sequence[int]) -> "tuple[Values, int]":
        """Return the rows of dialogues, and the most speakers of one."""
        rows = [(self.chunks[shard], at) for shard, at in map(self.index.place, dialogues)]

        def joined(parts: Iterable[npt.NDArray[Any]]) -> torch.Tensor:
            return torch.from_numpy(np.concatenate(list(parts)))

        speakers = joined(chunk.speakers[at] for chunk, at in rows)
        values = Values(
            features={m: joined(chunk.features[m][at] for chunk, at in rows) for m in self.modalities},
            present={m: joined(chunk.present[m][at] for chunk, at in rows) for m in self.modalities},
            labels=joined(chunk.labels[at] for chunk, at in rows),
            speakers=speakers,
            targets=joined(_targets(chunk)[at] for chunk, at in rows) if self.targets else None,
        )
        return values, int(speakers.max()) + 1

    @cached_property
    def all_labelled(self) -> bool:
        """Whether every utterance has a label."""
        return int(self.class_counts.sum()) == int(self.lengths.sum())

    @cached_property
    def _labelled(self) -> Ints:
        """``(D,)`` labelled utterances of each dialogue."""
        if self.index.labelled is not None:
            return self.index.labelled
        return self.index.counts(self._column(lambda chunk: chunk.labels) != UNLABELLED)

    @cached_property
    def _targeted(self) -> Ints:
        """``(D,)`` utterances with a target of each dialogue."""
        if self.index.targeted is not None:
            return self.index.targeted
        return self.index.counts(np.isfinite(self._column(_targets)))

    def _column(self, of: Callable[[Chunk], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Return a column of all rows of the split."""
        return np.concatenate([of(self.chunks[shard]) for shard in range(len(self.index.edges) - 1)])

    def statistics(self, modality: Modality) -> tuple[Floats, Floats]:
        """Return mean and deviation of a modality's features, ``(W,)`` each, over the utterances that have it.

        If the split streams and its sums are not stored, the first call reads all of it; all workers must make it.
        """
        return mean_and_deviation(self.chunks.sums(modality, self._known.get(modality)))

    @cached_property
    def _known(self) -> Mapping[Modality, Sums]:
        return self.stored()


def _targets(chunk: Chunk) -> Floats:
    assert chunk.targets is not None  # `open_split` checks it
    return chunk.targets


def open_split(
    features: FeatureSet,
    split: str,
    modalities: Sequence[Modality],
    *,
    shuffle_gib: float = math.inf,
    part: tuple[int, int] = (0, 1),
    wait: Callable[[], None] = lambda: None,
    attempt: int | None = None,
    targets: bool = False,
    nodes: tuple[int, ...] = (0,),
    node: int = 0,
) -> SplitData:
    """Open a split: decoded and mapped as a whole if it fits into one window of the shuffle, else as a stream.

    Args:
        features: The feature set.
        split: ``train``, ``dev``, ``test`` or ``gate``; shards of other splits stay closed.
        modalities: Which vectors to read.
        shuffle_gib: GiB of decoded features that are shuffled together; a larger split streams.
        part: This worker's place among the workers of its machine, and their number.
        wait: Returns when all workers have called it.
        attempt: A number that only the workers of this run share; without one, a worker decodes a streaming split by
            itself.
        targets: Whether batches hold targets.
        nodes: Of each rank, the number of its machine: a machine decodes only its part of a streaming split.
        node: This machine's number.

    Raises:
        DataError: The set has no targets.
        IntegrityError: A shard differs from the digest in the manifest.
    """
    if targets:
        require_targets(features, split)
    cache, shards, window = cache_folder(), features.shards(split), shuffle_gib * 2**30
    sweep(cache)
    sizes = 4 * sum(features.manifest.widths.values()) * shards.numbers("rows")
    several = len(set(nodes)) if attempt is not None else 1
    own = f"-{node}" if several > 1 else ""  # two nodes may lie on one disk
    name = f"{secrets.randbits(62) if attempt is None else attempt:x}-{split}{own}"
    ranks = LocalRanks(name, *(part if attempt is not None else (0, 1)), wait, node, several)
    index, chunks = (
        _hold(features, shards, modalities, cache=cache, part=part, wait=wait)
        if sizes.sum() <= window
        else _stream(features, shards, modalities, cache=cache, ranks=ranks)
    )
    counts = np.array(features.manifest.splits[split].class_counts)
    order = Shards(index.edges, sizes, window)
    stored = partial(stored_sums, features, split)
    return SplitData(index, chunks, order, tuple(modalities), counts, targets, stored, nodes, node)


def _hold(
    features: FeatureSet,
    shards: Sequence[ShardEntry],
    modalities: Sequence[Modality],
    *,
    cache: Path,
    part: tuple[int, int],
    wait: Callable[[], None],
) -> tuple[Index, Chunks]:
    """Decode this worker's part of the shards, wait for the others, and map them all."""
    place, workers = part
    stamps = storage.objects(features.uri)
    for shard in shards[place::workers]:
        decode_to_cache(features, shard, cache, stamps.get(shard.name, ""))
    wait()
    tables = [map_table(cached_file(shard, cache)) for shard in shards]
    return index_of(table["dialogue_id"] for table in tables), MappedShards(
        [chunk_of(table, modalities) for table in tables]
    )


def _stream(
    features: FeatureSet,
    shards: Sequence[ShardEntry],
    modalities: Sequence[Modality],
    *,
    cache: Path,
    ranks: LocalRanks,
) -> tuple[Index, Chunks]:
    """Read only the index of the dialogues for now; one worker reads it for all."""
    if ranks.place == 0:
        write_index(features, shards, cache)
    ranks.wait()
    index = read_index(shards, cache)
    return index, Stream(features, shards, modalities, index=index, ranks=ranks, cache=cache)


def _named(name: str, windows: Sequence[Ints], first: int) -> dict[str, Ints]:
    """Return windows by name; the first one's number is given."""
    return {f"{name}-{first + number}": shards for number, shards in enumerate(windows)}
