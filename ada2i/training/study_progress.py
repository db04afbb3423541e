"""How a running study looks in a terminal: a bar over all seeds of all runs, with the newest one's score."""

import logging
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ada2i.evaluation.study_rows import Cell
from ada2i.jobs.events import Event

log = logging.getLogger(__name__)


class StudyProgress:
    """Shows events of a study's job, and remembers which runs failed; other lines go to the logger at debug level."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        # Of a run that cells share, the first one's name.
        self.names = {cell.run_id: cell.name for cell in reversed(cells) if cell.run_id is not None}
        self.problems: dict[str, str] = {}
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} seeds"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not sys.stderr.isatty(),
        )
        self.bar: TaskID | None = None
        self.done = self.total = 0

    def __enter__(self) -> Self:
        self.console.print("Starting the study on Ray…")
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def __call__(self, event: Event | str) -> None:
        """Show one event."""
        if isinstance(event, str):
            log.debug(event)
        elif event["kind"] == "planned":
            self.total = event["seeds"]
            self.bar = self.bars.add_task("training", total=self.total)
        elif event["kind"] in ("trained", "diverged"):
            self._seed(event)

    def _seed(self, event: Event) -> None:
        self.done += 1
        if event["kind"] == "diverged":
            self.problems[event["run_id"]] = f"seed {event['seed']}: {event['message']}"
        line = seed_line(self.names[event["run_id"]], event)
        self.console.print(f"{self.done:>4}/{self.total}  {line}", markup=False)
        if self.bar is not None:
            self.bars.update(self.bar, completed=self.done)


def seed_line(name: str, event: Event) -> str:
    """Return the end of a seed's training in one line."""
    if event["kind"] == "diverged":
        return f"{name}, seed {event['seed']}: {event['message']}"
    return f"{name}, seed {event['seed']}: dev wF1 {event['dev_weighted_f1']:.4f} after {event['seconds']:g} s"
