"""The dialogues of a split and their shards, as arrays, because there may be millions.

Shape letters in this file:
    D dialogues of the split     S shards of the split
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ada2i import storage
from ada2i.data.entries import ShardEntry
from ada2i.data.manifest import FeatureSet, read_plain
from ada2i.data.schema import Column
from ada2i.errors import IntegrityError
from ada2i.loader.decoded import LAYOUT, complete, is_whole, map_table, partial_file, runs
from ada2i.records import UNLABELLED

_READERS = 8  # concurrent readers; they mostly wait for the store

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Index:
    """The dialogues of a split.

    Attributes:
        ids: ``(D,)`` Arrow strings.
        lengths: ``(D,)`` utterances of each dialogue.
        edges: ``(S + 1,)`` first dialogue of each shard, then ``D``.
        labelled: ``(D,)`` utterances with a label; None if they were not counted.
        targeted: ``(D,)`` utterances with a target; None if they were not counted.
    """

    ids: Column
    lengths: Ints
    edges: Ints
    labelled: Ints | None = None
    targeted: Ints | None = None

    @cached_property
    def first_rows(self) -> Ints:
        """``(D,)`` first row of each dialogue in the split."""
        return np.cumsum(self.lengths) - self.lengths

    @cached_property
    def _starts(self) -> Ints:
        """``(D,)`` first row of each dialogue in its shard."""
        return self.first_rows - np.repeat(self.first_rows[self.edges[:-1]], np.diff(self.edges))

    def place(self, dialogue: int) -> tuple[int, slice]:
        """Return a dialogue's shard, and its rows there."""
        shard = int(np.searchsorted(self.edges, dialogue, side="right")) - 1
        start = int(self._starts[dialogue])
        return shard, slice(start, start + int(self.lengths[dialogue]))

    def counts(self, chosen: npt.NDArray[np.bool_]) -> Ints:
        """Return the number of chosen utterances of each dialogue, ``(D,)``, from a mask of all rows of the split."""
        return np.add.reduceat(chosen, self.first_rows, dtype=np.int64)

    def check(self, shard: int, lengths: Ints, uri: str) -> None:
        """Check that a shard, whose digest is now verified, has the dialogues that were read from it before.

        Raises:
            IntegrityError: It has other dialogues.
        """
        if not np.array_equal(lengths, self.lengths[self.edges[shard] : self.edges[shard + 1]]):
            raise IntegrityError(
                f"{uri} must hold the dialogues that were read from it at first, but holds others. It was damaged "
                "then, or replaced in the meantime. Delete ada2i-features-* where temporary files are, and run again.",
                uri=uri,
            )


def index_of(columns: Iterable[Column]) -> Index:
    """Return the index of a split from the columns ``dialogue_id`` of its shards, in their order."""
    found = [runs(column) for column in columns]
    return Index(
        ids=pa.chunked_array([ids for ids, _ in found], pa.string()),
        lengths=np.concatenate([lengths for _, lengths in found]),
        edges=np.cumsum([0, *(len(lengths) for _, lengths in found)]),
    )


def write_index(features: FeatureSet, shards: Sequence[ShardEntry], cache: Path) -> None:
    """Read the dialogue ids of a split's shards, which are much smaller than the shards, unless the index exists."""
    target = _index_file(shards, cache)
    if is_whole(target):
        return
    with ThreadPoolExecutor(_READERS) as readers:
        plain = list(readers.map(lambda shard: read_plain(features, shard), shards))
    index = index_of(table["dialogue_id"] for table in plain)
    shard = np.repeat(np.arange(len(shards), dtype=np.int32), np.diff(index.edges))
    table = pa.table({"id": index.ids.combine_chunks(), "length": index.lengths, "shard": shard})
    if len(index.lengths):
        counted = np.concatenate([found["label"].to_numpy() != UNLABELLED for found in plain])
        table = table.append_column("labelled", pa.array(index.counts(counted)))
        if features.manifest.has_targets:
            counted = np.concatenate([found["target"].is_valid().to_numpy() for found in plain])
            table = table.append_column("targeted", pa.array(index.counts(counted)))
    partial = partial_file(cache)
    with pa.OSFile(str(partial), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    complete(partial, target)


def read_index(shards: Sequence[ShardEntry], cache: Path) -> Index:
    """Return the index that ``write_index`` wrote; ids stay in the file, which is mapped."""
    table = map_table(_index_file(shards, cache))
    edges = np.searchsorted(table["shard"].to_numpy(), np.arange(len(shards) + 1))
    extra = {name: table[name].to_numpy() for name in ("labelled", "targeted") if name in table.column_names}
    return Index(table["id"], table["length"].to_numpy(), np.asarray(edges, dtype=np.int64), **extra)


def _index_file(shards: Sequence[ShardEntry], cache: Path) -> Path:
    digest = storage.digest("".join(shard.sha256 for shard in shards).encode())
    return cache / f"{digest}.{LAYOUT}b.index.arrow"
