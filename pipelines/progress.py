"""What flows show of a job: its progress, its warnings, and its last words where it fails."""

import re
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from ada2i.errors import Ada2iError
from ada2i.jobs import client
from ada2i.jobs.cluster import cluster
from ada2i.jobs.events import Event

_TROUBLE = re.compile(r'\b(WARNING|ERROR|CRITICAL)\b|"level": "(warning|error|critical)"|^Traceback')
_LAST_LINES = 20


class Follower(ABC):
    """Carries a job's events into the flow's log; of other lines, warnings and errors, and the rest at debug level."""

    def __init__(self, *, key: str, description: str) -> None:
        self.log = get_run_logger()
        self.progress = Progress(key=key, description=description)
        self.lines: deque[str] = deque(maxlen=_LAST_LINES)

    def __call__(self, event: Event | str) -> None:
        """Take one event, or one line of the job's log."""
        if isinstance(event, str):
            self.lines.append(event)
            (self.log.warning if _TROUBLE.search(event) else self.log.debug)(event)
        else:
            self.take(event)

    @abstractmethod
    def take(self, event: Event) -> None:
        """Take one event."""

    def run(self, module: str, uri: str) -> None:
        """Run a job to its end, or that of the live attempt at it; see ``jobs.client.run``."""
        with self.following(), cluster() as ray:
            client.run(client.Job(module, uri), address=ray.address, on_event=self)

    @contextmanager
    def following(self) -> Iterator[None]:
        """Follow a job to its end: all of the bar is done then, or the log ends with the job's last lines."""
        try:
            yield
        except Ada2iError:
            self._last_words()
            raise
        self.progress(100.0)

    def _last_words(self) -> None:
        if self.lines:
            self.log.error("The job's last lines:\n%s", "\n".join(self.lines))


class Progress:
    """A progress artifact, which must not end the job that it shows: it stands still while the server is away."""

    def __init__(self, *, key: str, description: str) -> None:
        self.log = get_run_logger()
        self.told = False
        self.artifact = self._try(lambda: create_progress_artifact(progress=0.0, key=key, description=description))

    def __call__(self, percent: float) -> None:
        """Show how much is done."""
        if isinstance(self.artifact, UUID):
            artifact = self.artifact
            self._try(lambda: update_progress_artifact(artifact, progress=percent))

    def _try(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except httpx.HTTPError as problem:  # no connection, no answer in time, or one that says that it cannot
            if not self.told:
                self.log.warning("Progress is not shown for now: %s: %s", type(problem).__name__, problem)
            self.told = True
            return None
