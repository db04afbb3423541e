"""Drift windows of a replica: sums over what it answered, stored next to the windows of predictions.

A window is the first dialogues of an hour, up to a number of them; one with fewer than 5 dialogues goes on until it has
5. A thread of its own writes it. What cannot be written is dropped after a second try.

Shape letters in this file:
    D dialogues     K sums
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np

from ada2i.drift import Window, keep
from ada2i.errors import Ada2iError
from ada2i.inference.sums import Floats
from ada2i.prediction.records import LEAST_DIALOGUES

log = logging.getLogger(__name__)

SECONDS: Final = 3600.0
"""Duration of a window."""

_RETRY_SECONDS = 60.0
_WAITING = 4  # windows that wait for the store; more are dropped


@dataclass
class _Open:
    """A window that still counts, or that is full and waits for the end of its hour."""

    begun: float
    dialogues: int = 0
    sums: Floats | None = None
    written: bool = False


class Windows:
    """The windows of a model's versions; every method may be called from any thread, and none waits for the store."""

    def __init__(self, root: str, model: str, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Write windows below ``root``; ``most`` is the largest number of dialogues of one."""
        self._root, self._model, self._most, self._clock = root, model, most, clock
        self._open: dict[int, _Open] = {}
        self._lock, self._ending = threading.Lock(), threading.Event()
        self._writer, self._room = ThreadPoolExecutor(1), threading.BoundedSemaphore(_WAITING)
        self._results: Counter[str] = Counter()

    def wants(self, number: int) -> bool:
        """Return whether the next dialogue of a version is counted."""
        with self._lock:
            found = self._open.get(number)
            return found is None or found.dialogues < self._most

    def add(self, number: int, sums: Sequence[Floats]) -> None:
        """Count dialogues of a version by their sums, ``(K,)`` each; those that are not finite are left out."""
        rows = [row for row in sums if np.isfinite(row).all()]
        with self._lock:
            found = self._open.setdefault(number, _Open(self._clock()))
            for row in rows[: self._most - found.dialogues]:
                found.sums = row if found.sums is None else found.sums + row
                found.dialogues += 1
            if found.dialogues == self._most:
                self._write(number, found)

    def close_old(self) -> None:
        """Write each window whose hour is over, if it has enough dialogues."""
        with self._lock:
            for number, found in list(self._open.items()):
                if self._clock() - found.begun >= SECONDS and found.dialogues >= LEAST_DIALOGUES:
                    self._write(number, self._open.pop(number))

    def close(self) -> None:
        """Write each window that has enough dialogues, and drop the others: another version takes over."""
        with self._lock:
            for number, found in self._open.items():
                if found.dialogues >= LEAST_DIALOGUES:
                    self._write(number, found)
            self._open.clear()

    def end(self) -> None:
        """Close all windows, and wait until they are written; nothing is tried twice any more."""
        self.close()
        self._ending.set()
        self._writer.shutdown()

    def results(self) -> dict[str, int]:
        """Return how many windows were ``stored`` since the last call, and how many attempts ``failed``.

        A window that is dropped because too many wait counts as a failed attempt.
        """
        with self._lock:
            found, self._results = dict(self._results), Counter()
        return found

    def _write(self, number: int, found: _Open) -> None:
        """Hand a window to the writer once; the caller holds the lock."""
        if found.written or found.sums is None or self._ending.is_set():
            return
        found.written = True
        if not self._room.acquire(blocking=False):
            self._results["failed"] += 1
            log.warning("A drift window of %s@%d is dropped: the store is too slow.", self._model, number)
            return
        self._writer.submit(self._store, number, found.dialogues, found.sums)

    def _store(self, number: int, dialogues: int, sums: Floats) -> None:
        try:
            window = Window.of_endpoint(self._model, number, dialogues, sums)
            if self._is_stored(window) or (not self._ending.wait(_RETRY_SECONDS) and self._is_stored(window)):
                return
            log.warning("A drift window of %s@%d is dropped.", self._model, number)
        finally:
            self._room.release()

    def _is_stored(self, window: Window) -> bool:
        """Write a window; return whether that worked."""
        result = "stored"
        try:
            keep(self._root, window)
        except Ada2iError as problem:
            log.warning("A drift window of %s@%d cannot be stored: %s", window.model, window.version, problem.message)
            result = "failed"
        with self._lock:
            self._results[result] += 1
        return result == "stored"
