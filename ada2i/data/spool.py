"""Rows on local disk, for tables that do not fit into memory.

Rows are written piece by piece and read through a memory map, so a table of them takes only the memory of the pages
that were read since ``release``. The file lies in Python's temporary folder (``TMPDIR``) and has no name: its space is
free when nothing refers to its tables any more, also after a kill.

Shape letters in this file:
    N rows
"""

import mmap
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, Self
from weakref import WeakSet

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import ipc

from ada2i.errors import ResourceError

PIECE = 1 << 13  # rows that are read, checked or converted at once

_RUN_BYTES = 1 << 24  # of rows that are sorted at once
_MAPPED = 8  # runs that are read at once: each takes some pages for each of its columns
_ALIGNED = 64  # bytes: where a table starts in the file
_MAPS: "WeakSet[mmap.mmap]" = WeakSet()


def pieces(table: pa.Table) -> Iterator[pa.Table]:
    """Yield the rows of a table in order, in pieces of at most ``PIECE``; pages of earlier ones take no memory."""
    for batch in table.to_batches(PIECE):
        yield pa.Table.from_batches([batch])
        release()


def release() -> None:
    """Return free memory, and that of all pages of spools that were read: they are read again when they are used."""
    for found in list(_MAPS):
        found.madvise(mmap.MADV_DONTNEED)
    pa.default_memory_pool().release_unused()


def stored(parts: Iterable[pa.Table]) -> pa.Table:
    """Return rows, of at least one part, as a table on disk; the parts have one schema.

    Raises:
        ResourceError: The disk is full.
    """
    with Spool() as spool:
        spool.add(parts)
        return spool.tables()[0]


def ordered(parts: Iterable[pa.Table], ranks: NDArray[Any]) -> pa.Table:
    """Return rows in another order, as a table on disk.

    Args:
        parts: ``N`` rows in parts of any size, with one schema.
        ranks: ``(N,)`` integers, the place that each row gets, all different.
    """
    if (ranks[1:] > ranks[:-1]).all():
        return stored(parts)
    places: list[NDArray[Any]] = []
    runs = [pa.Table.from_batches([run]) for run in stored(_runs(parts, ranks, places)).to_batches()]
    step = -(-len(ranks) // len(runs))
    return stored(_merged(runs, places, begin, begin + step) for begin in range(0, len(ranks), step))


class Spool:
    """Tables in one file without a name; they stay when it is closed."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the spool
        self._places: list[tuple[int, int]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # what is not written yet is not needed, and may not fit on the disk
            self._file.close()

    def add(self, parts: Iterable[pa.Table]) -> None:
        """Write a table as ``stored`` does."""
        parts = iter(parts)
        begin = -(-self._file.seek(0, 2) // _ALIGNED) * _ALIGNED
        self._file.seek(begin)
        first = next(parts)
        try:
            with ipc.new_stream(pa.PythonFile(self._file, "w"), first.schema) as writer:
                for part in chain([first], parts):
                    writer.write_table(part)
            self._file.flush()
        except OSError as problem:
            raise ResourceError(
                f"The temporary folder {tempfile.gettempdir()} must have room for the rows of an import, but writing "
                f"failed: {problem.strerror or problem}. Free space there, or name another folder in TMPDIR."
            ) from problem
        self._places.append((begin, self._file.tell()))

    def tables(self) -> list[pa.Table]:
        """Return all tables, in the order in which they were added."""
        if not self._places:
            return []
        mapped = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        _MAPS.add(mapped)
        data = pa.py_buffer(mapped)
        slices = (data.slice(begin, end - begin) for begin, end in self._places)
        return [ipc.open_stream(pa.BufferReader(part)).read_all() for part in slices]


def _runs(parts: Iterable[pa.Table], ranks: NDArray[Any], places: list[NDArray[Any]]) -> Iterator[pa.Table]:
    """Yield the rows in sorted runs, each of one chunk; append the ranks of each to ``places``."""
    begin = 0
    for run in _joined(parts):
        found = ranks[begin : begin + run.num_rows]
        order = np.argsort(found)
        places.append(found[order])
        begin += run.num_rows
        yield run.take(order)


def _merged(runs: Sequence[pa.Table], places: Sequence[NDArray[Any]], begin: int, end: int) -> pa.Table:
    """Return the rows with some ranks, from those of all runs, in order and in one chunk."""
    bounds = [np.searchsorted(found, (begin, end)).tolist() for found in places]
    ranks = np.concatenate([found[low:high] for found, (low, high) in zip(places, bounds, strict=True)])
    parts = [run.slice(low, high - low) for run, (low, high) in zip(runs, bounds, strict=True)]
    copies = []
    for first in range(0, len(parts), _MAPPED):
        copies.append(pa.concat_tables(parts[first : first + _MAPPED]).combine_chunks())
        release()
    return pa.concat_tables(copies).combine_chunks().take(np.argsort(ranks))


def _joined(parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield the rows in larger parts, each of one chunk."""
    held: list[pa.Table] = []
    size = 0
    for part in parts:
        if not part.num_rows:  # a run without rows would be lost in a stream
            continue
        held.append(part)
        size += part.nbytes
        if size > _RUN_BYTES:
            yield pa.concat_tables(held).combine_chunks()
            held, size = [], 0
    if held:
        yield pa.concat_tables(held).combine_chunks()
