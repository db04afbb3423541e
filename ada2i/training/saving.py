"""Writes checkpoints: they are copied into memory between two steps, then written by a thread during training.

A seed's folder holds ``checkpoints``, the newest two of which are kept in case one gets damaged, and ``best``, the
weights of the best epochs on dev that these name. Both stay in memory until they are written together, the best weights
first, so that no checkpoint names best weights that do not exist. Steps lost to a kill are trained again, with
identical results.

Additional memory of rank 0: one copy of weights and optimizer, one or two of the weights, and, while it writes,
twice the largest file.
"""

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self

from ada2i import checkpoint, storage
from ada2i.checkpoint import Snapshot, TrainCursor, TrainState
from ada2i.errors import Ada2iError
from ada2i.store import SeedFolder
from ada2i.training import distributed
from ada2i.training.lease import Lease

log = logging.getLogger(__name__)

_SHARE: Final = 0.02  # maximum share of time for checkpoints at ends of epochs
_RETRY_SECONDS: Final = 60.0  # least time between two attempts to write, after a failed one


class Saver:
    """Writes one seed's checkpoints; on other ranks than rank 0, it does nothing.

    Leaving its block waits for the current write; only a kill interrupts a write, and then nothing visible remains.

    Args:
        uri: The seed's folder.
        state: The state that training changes.
        minutes: Interval after which a checkpoint is due; 0: after every step.
        lease: The attempt's lease, checked before each write; without one, no other attempt is expected.

    Attributes:
        lost: Whether another attempt has taken the lease, so that nothing more is written.
    """

    def __init__(self, uri: str, state: TrainState, *, minutes: float, lease: Lease | None = None) -> None:
        self.uri = uri
        self.lease, self.lost, self.failures = lease, False, 0
        self.base, self.best_base = SeedFolder(uri).checkpoints, SeedFolder(uri).best
        self.state = state
        self.seconds = 60.0 * minutes
        self.writes = distributed.rank() == 0
        self.cost = 0.0  # CPU seconds of this process for the last checkpoint
        self.since = time.monotonic()
        self._memory: Snapshot | None = None
        self._best: Snapshot | None = None  # not yet written
        self._unwritten: Snapshot | None = None  # being written; needed again if that fails
        self._previous: TrainCursor | None = None  # of the last complete checkpoint
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[float] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()
        if error is None:
            self._await_write()
        elif self._writing and (problem := self._writing.exception()):
            log.warning("The last checkpoint was not written: %s", problem)  # training's own error is raised instead

    def due(self, *, epoch_done: bool = False) -> bool:
        """Return whether a checkpoint must be written now.

        While a checkpoint is being written, none is due, and after a failure not for a while: slow or unreachable
        storage delays checkpoints, not training.
        """
        if not self.writes:
            return False
        if self._writing and self._writing.done():
            self._await_write(report_only=True)
        waited = time.monotonic() - self.since
        if self.lost or (self.failures and waited < max(self.seconds, _RETRY_SECONDS)):
            return False
        if not self.seconds:
            return True
        enough = waited >= self.seconds or (epoch_done and waited >= self.cost / _SHARE)
        return enough and self._writing is None

    def keep_best(self, progress: TrainCursor) -> None:
        """Copy the weights as the best so far; they are written with the next checkpoint."""
        if self.writes:
            # A snapshot that the thread writes is no longer `_best`, so this never changes what is being written.
            self._best = checkpoint.take(self.state, progress, optimizer=False, over=self._best)

    def start(self, progress: TrainCursor) -> None:
        """Copy weights and optimizer, and start writing them when the current write is done."""
        self._await_write(report_only=True)
        begun = time.monotonic()
        self._memory = checkpoint.take(self.state, progress, over=self._memory)
        self._unwritten, self._best = self._best, None
        self.since = time.monotonic()
        self._writing = self._pool.submit(self._write, self._memory, self._unwritten, self.since - begun)

    def save(self, progress: TrainCursor) -> None:
        """Write a checkpoint and wait until it is complete."""
        if self.writes:
            self.start(progress)
            self._await_write()

    def finish(self, progress: TrainCursor) -> None:
        """Write the last checkpoint; delete remains of killed attempts, except it and the best weights."""
        self.save(progress)
        if self.writes and self._may_write():
            checkpoint.sweep(self.base, [progress.step], later=True)
            checkpoint.sweep(self.best_base, [progress.best_step], later=True)
            storage.delete_partials(self.uri, older_than_s=0)

    def _write(self, whole: Snapshot, best: Snapshot | None, cost: float) -> float:
        """Write, in the thread; return the cost."""
        begun = time.thread_time()
        if not self._may_write():
            return cost
        if best:
            checkpoint.write(self.best_base, best)
        checkpoint.write(self.base, whole)
        kept = [cursor for cursor in (self._previous, whole.progress) if cursor]
        self._previous = whole.progress
        if self._may_write():
            checkpoint.sweep(self.base, [cursor.step for cursor in kept])
            checkpoint.sweep(self.best_base, [cursor.best_step for cursor in kept])
        return cost + time.thread_time() - begun

    def _may_write(self) -> bool:
        self.lost = self.lost or (self.lease is not None and not self.lease.held())
        return not self.lost

    def _await_write(self, *, report_only: bool = False) -> None:
        """Wait for the current write; raise its error, unless ``report_only``: then log it."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            self.cost, self.failures = writing.result(), 0
        except Ada2iError as problem:
            self._best = self._best or self._unwritten
            if not report_only:
                raise
            self.failures += 1
            wait = max(self.seconds, _RETRY_SECONDS)
            log.warning(
                "A checkpoint was not written (failure %d in a row): %s Training continues, and tries again after "
                "%.0f s.",
                self.failures,
                problem,
                wait,
            )
