"""The progress of a running job in a terminal: bars, or lines if standard error is not a terminal."""

import logging
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TaskID, TextColumn, TimeElapsedColumn

from ada2i.display import count
from ada2i.jobs import logs
from ada2i.jobs.events import Event

log = logging.getLogger(__name__)

_QUIET_SECONDS = 10.0  # between two lines if there are no bars


class Terminal(ABC):
    """Shows events of a job; other lines of its log are logged at debug level."""

    def __init__(self, opening: str, *columns: ProgressColumn, unit: str = "") -> None:
        """Prepare the display without showing anything yet.

        Args:
            opening: The first line.
            columns: What a bar shows after the elapsed time.
            unit: The unit of a bar.
        """
        self.opening = opening
        self.console = logs.notes()
        self.waiting: TaskID | None = None
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TextColumn("elapsed"),
            TimeElapsedColumn(),
            *columns,
            console=self.console,
            disable=not sys.stderr.isatty() or logs.as_json(),
        )

    def __enter__(self) -> Self:
        self.console.print(self.opening)
        # The fields are those of the columns that subclasses add.
        self.waiting = self.bars.add_task("waiting for the first result", total=None, newest="", rate="")
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def __call__(self, event: Event | str) -> None:
        """Process one event, or one other line."""
        if isinstance(event, str):
            log.debug(event)
            return
        if event["kind"] == "waiting":
            self.console.print(event["message"])
            return
        self.show(event)
        if self.waiting is not None and len(self.bars.tasks) > 1:
            self.bars.remove_task(self.waiting)
            self.waiting = None

    @abstractmethod
    def show(self, event: Event) -> None:
        """Show one event; ignore other kinds of events."""


class CountingTerminal(Terminal):
    """Shows a job that counts: bars with rate and time left or, without a terminal, a line at most every 10 s."""

    def __init__(
        self,
        opening: str,
        line: Callable[[Event], str],
        *,
        bar: Callable[[Event], str],
        rate: Callable[[Event], str],
        unit: str = "",
    ) -> None:
        """Prepare the display without showing anything yet.

        Args:
            opening: The first line.
            line: Returns an event's line.
            bar: Returns the name of the bar of a progress event.
            rate: Returns the text after that bar.
            unit: The unit of a bar.
        """
        super().__init__(opening, TextColumn("{task.fields[rate]}"), unit=unit)
        self.line = line
        self.bar = bar
        self.rate = rate
        self.tasks: dict[str, TaskID] = {}
        self.printed = -_QUIET_SECONDS

    def show(self, event: Event) -> None:
        """Show a start, a plan or progress."""
        if event["kind"] in ("started", "planned"):
            self.console.print(self.line(event))
        elif event["kind"] == "progress":
            (self._print if self.bars.disable else self._draw)(event)

    def _print(self, event: Event) -> None:
        now = time.monotonic()
        if event["done"] == event["total"] or now - self.printed > _QUIET_SECONDS:
            self.printed = now
            self.console.print(self.line(event))

    def _draw(self, event: Event) -> None:
        bar = self.bar(event)
        if bar not in self.tasks:
            self.tasks[bar] = self.bars.add_task(bar, total=event["total"], rate="")
        self.bars.update(self.tasks[bar], completed=event["done"], rate=self.rate(event))


def started_line(event: Event, job: str) -> str:
    """Return the start of a job as one line: its workers and device, why these, and its run."""
    reason = f" ({event['reason']})" if event.get("reason") else ""
    return f"{count(event['workers'], 'worker')} on {event['device']}{reason}, {job} {event['run_id']}"


def rate_text(event: Event, *, digits: int) -> str:
    """Return rate and time left as text; the rate with ``digits`` decimal places."""
    minutes, seconds = divmod(event["seconds_left"], 60)
    return f"{event['per_second']:,.{digits}f}/s  {minutes}:{seconds:02} left"
