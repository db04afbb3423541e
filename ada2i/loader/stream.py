"""Decoded shards of a split that is too large to hold at once: one window at a time, decoded ahead.

A thread decodes the current window of training, and the next one, into files of a folder of this attempt. The workers
of a machine decode a part each and share the files: each file gets a hard link per worker. A worker deletes its own
link when it has left the window, so it removes no file that a slower worker needs; a faster worker waits for the
shards of the slower. So two windows are on the disk, and a third while a worker is behind.

A killed worker leaves its folder. Running workers hold a lock on it, which ends with the process; the next
attempt on the machine deletes every folder without a lock.
"""

import fcntl
import os
import shutil
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ada2i import storage
from ada2i.data import schema
from ada2i.data.entries import ShardEntry
from ada2i.data.manifest import FeatureSet, read_shard
from ada2i.errors import JobError
from ada2i.loader.chunks import NamedWindows
from ada2i.loader.decoded import LAYOUT, Chunk, chunk_of, complete, decode, map_table, partial_file, runs
from ada2i.loader.index import Index
from ada2i.loader.statistics import Sums, block_sums
from ada2i.modalities import Modality

_PREFIX = "stream-"  # prefix of the folders of attempts
_POLL_S = 0.002
_LOST_S = 1800  # a worker that has not decoded its shard by then counts as lost
_STRAYS = 8  # shards outside all windows that stay mapped
_LEFT = 4  # windows whose late files are still deleted


@dataclass(frozen=True)
class LocalRanks:
    """The workers of one machine that share decoded files.

    Attributes:
        name: Unique name of this attempt.
        place: This worker's place among them.
        workers: Their number.
        wait: Returns when all workers have called it.
        node: This machine's number among those that share the split.
        nodes: Their number.
    """

    name: str
    place: int
    workers: int
    wait: Callable[[], None]
    node: int = 0
    nodes: int = 1


class Stream:
    """A bounded window of decoded shards; see ``Chunks``."""

    def __init__(
        self,
        features: FeatureSet,
        shards: Sequence[ShardEntry],
        modalities: Sequence[Modality],
        *,
        index: Index,
        ranks: LocalRanks,
        cache: Path,
    ) -> None:
        self._features, self._shards, self._modalities = features, shards, modalities
        self._index, self._ranks, self._cache = index, ranks, cache
        self._folder, lock = _enter(cache, ranks.name)
        self._windows: NamedWindows = {}
        self._left: deque[str] = deque(maxlen=_LEFT)
        self._chunks: dict[tuple[str, int], Chunk] = {}
        self._strays: dict[int, Chunk] = {}
        self._due: deque[tuple[str, int]] = deque()  # (window, shard)s for this worker to decode
        self._guard = threading.Lock()  # of `_due`, `_work` and the links
        self._work: Future[None] | None = None
        self._thread = ThreadPoolExecutor(1, "decode")
        self._summed = False
        weakref.finalize(self, _leave, self._folder, lock)

    def need(self, windows: NamedWindows) -> None:
        """Start decoding windows, in this order; windows that are no longer named are dropped.

        Raises:
            IntegrityError: A shard that was decoded since the last call differs from its digest.
        """
        self._check()
        if windows.keys() == self._windows.keys():
            return
        fresh = [name for name in windows if name not in self._windows]
        gone = [name for name in self._windows if name not in windows]
        with self._guard:
            self._windows = dict(windows)
            self._left.extend(gone)
            if self._ranks.workers == 1:  # else another worker may wait for a shard that this worker has left
                self._due = deque(due for due in self._due if due[0] in windows)
            for name in fresh:
                ours = windows[name][self._ranks.node :: self._ranks.nodes]
                self._due.extend((name, s) for s in ours[self._ranks.place :: self._ranks.workers].tolist())
            if self._due and self._work is None:
                self._work = self._thread.submit(self._decode_next)
            self._chunks = {key: chunk for key, chunk in self._chunks.items() if key[0] in windows}
            self._strays.clear()
            for name in (name for name in self._left if name not in windows):
                for path in self._folder.glob(f"{name}.*.{self._ranks.place}"):
                    path.unlink()

    def __getitem__(self, shard: int) -> Chunk:
        """Return a shard as soon as it is decoded; one outside all windows, or of another node, is decoded at once."""
        window = next((name for name, shards in self._windows.items() if shard in shards), None)
        if window is None or self.node_of(shard) != self._ranks.node:
            return self._stray(shard)
        if (window, shard) not in self._chunks:
            self._wait_for(path := self._link(window, shard, self._ranks.place))
            self._chunks[window, shard] = self._map(shard, path)
        return self._chunks[window, shard]

    def node_of(self, shard: int) -> int:
        """See ``Chunks``. The shards of a window go to the nodes in turn; those outside all windows by their number."""
        for shards in self._windows.values():
            if len(place := np.flatnonzero(shards == shard)):
                return int(place[0]) % self._ranks.nodes
        return shard % self._ranks.nodes

    def sums(self, modality: Modality, known: Sums | None = None) -> Iterator[Sums]:
        """See ``Chunks``. Without known sums each machine reads the whole split; later runs find them in the cache."""
        if not self._summed:
            for shard in self._shards[self._ranks.place :: self._ranks.workers] if known is None else ():
                self._sum(shard)
            self._ranks.wait()  # also with known sums: another worker may not have found them
            self._summed = True
        if known is not None:
            return iter([known])
        for shard in self._shards:
            self._sum(shard)  # those of workers with known sums
        widths = self._features.manifest.widths
        end = 0
        for name, width in widths.items():
            begin, end = end, end + 1 + 2 * width
            if name == modality:
                break
        return (np.load(self._sums_file(shard))[:, begin:end] for shard in self._shards)

    def _decode_next(self) -> None:
        """Decode the first shard that is due, create each worker's link, and schedule the next shard."""
        with self._guard:
            if not self._due:
                self._work = None
                return
            window, shard = self._due.popleft()
        partial = decode(self._features, self._shards[shard], self._folder)
        with self._guard:
            for place in range(self._ranks.workers):
                if place != self._ranks.place or window in self._windows:
                    with suppress(FileExistsError):
                        os.link(partial, self._link(window, shard, place))
            partial.unlink()
            # One task per shard: at exit, the interpreter waits for one shard at most.
            self._work = self._thread.submit(self._decode_next) if self._due else None

    def _check(self) -> None:
        if (work := self._work) is not None and work.done():
            work.result()  # raises its error; successful work has replaced itself by its successor, or None

    def _wait_for(self, path: Path) -> None:
        deadline = time.monotonic() + _LOST_S
        while not path.exists():
            self._check()
            if time.monotonic() > deadline:
                raise JobError(
                    f"{path} must have been decoded by a worker of this machine within {_LOST_S} s, but was not. Look "
                    "at the other workers' logs, and run again."
                )
            time.sleep(_POLL_S)

    def _stray(self, shard: int) -> Chunk:
        if shard not in self._strays:
            path = decode(self._features, self._shards[shard], self._folder)
            self._strays[shard] = self._map(shard, path)
            path.unlink()  # its pages stay while they are mapped
            while len(self._strays) > _STRAYS:
                del self._strays[next(iter(self._strays))]
        return self._strays[shard]

    def _map(self, shard: int, path: Path) -> Chunk:
        table = map_table(path)
        _, lengths = runs(table["dialogue_id"])
        self._index.check(shard, lengths, storage.join(self._features.uri, self._shards[shard].name))
        return chunk_of(table, self._modalities)

    def _link(self, window: str, shard: int, place: int) -> Path:
        return self._folder / f"{window}.{shard}.{place}"

    def _sum(self, shard: ShardEntry) -> None:
        target = self._sums_file(shard)
        if _has_sums(target):
            return
        table = read_shard(self._features, shard)
        vectors = (schema.unpack_vectors(table[schema.vector_column(m)]) for m in self._features.manifest.modalities)
        partial = partial_file(self._cache)
        with partial.open("wb") as file:
            np.save(file, np.hstack([block_sums(values, present) for values, present in vectors]))
        complete(partial, target)

    def _sums_file(self, shard: ShardEntry) -> Path:
        return self._cache / f"{shard.sha256}.{LAYOUT}.sums.npy"


def _has_sums(path: Path) -> bool:
    """Return whether a file of sums exists and is complete: after a power cut, a new file may be damaged."""
    try:
        np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return False
    return True


def sweep(cache: Path) -> None:
    """Delete the folders of attempts that have ended."""
    for folder in cache.glob(f"{_PREFIX}*"):
        with suppress(FileNotFoundError):  # another worker may delete it, too
            handle = os.open(folder, os.O_RDONLY)
            _delete_unless_locked(folder, handle)
            os.close(handle)


def _enter(cache: Path, name: str) -> tuple[Path, int]:
    """Return the folder of an attempt, created if needed, and a handle that keeps others from deleting it."""
    folder = cache / f"{_PREFIX}{name}"
    while True:
        with suppress(FileExistsError):
            folder.mkdir()
        try:
            handle = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # deleted between creating and opening it
            continue
        fcntl.flock(handle, fcntl.LOCK_SH)
        if os.fstat(handle).st_nlink:  # 0 if it was deleted between creating and locking it
            return folder, handle
        os.close(handle)


def _leave(folder: Path, lock: int) -> None:
    """Delete the folder of an attempt if this worker is the last one in it."""
    fcntl.flock(lock, fcntl.LOCK_UN)
    _delete_unless_locked(folder, lock)
    os.close(lock)


def _delete_unless_locked(folder: Path, handle: int) -> None:
    with suppress(BlockingIOError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
