"""How a running job looks in a terminal: bars, and lines where there is no terminal."""

import logging
import sys
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn

from ada2i.jobs import logs
from ada2i.jobs.events import Event

log = logging.getLogger(__name__)


class Terminal(ABC):
    """Shows events of a job; other lines of its log go to the logger at debug level."""

    def __init__(self, opening: str, *columns: ProgressColumn, unit: str = "") -> None:
        """Make ready; nothing is shown yet.

        Args:
            opening: The first line.
            columns: What a bar shows behind the time it took.
            unit: What a bar counts.
        """
        self.opening = opening
        self.console = logs.notes()
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn(f"{{task.completed}}/{{task.total}} {unit}".rstrip()),
            TimeElapsedColumn(),
            *columns,
            console=self.console,
            disable=not sys.stderr.isatty() or logs.as_json(),
        )

    def __enter__(self) -> Self:
        self.console.print(self.opening)
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def __call__(self, event: Event | str) -> None:
        """Take one event, or one other line."""
        if isinstance(event, str):
            log.debug(event)
        else:
            self.show(event)

    @abstractmethod
    def show(self, event: Event) -> None:
        """Show one event; kinds that say nothing here are passed over."""
