"""The progress of a study in a terminal: a bar over all seeds of all runs, with a line for each."""

from collections.abc import Sequence

from rich.progress import TaskID, TimeRemainingColumn

from ada2i.jobs.events import Event
from ada2i.jobs.terminal import Terminal
from ada2i.studies.rows import Cell


class StudyProgress(Terminal):
    """Follows a study, and remembers which runs failed."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        super().__init__("Starting the study on Ray…", TimeRemainingColumn(), unit="seeds")
        # The first cell names a run that cells share.
        self.names = {cell.run_id: cell.name for cell in reversed(cells) if cell.run_id is not None}
        self.problems: dict[str, str] = {}
        self.bar: TaskID | None = None
        self.done = self.total = 0

    def show(self, event: Event) -> None:
        """Show the plan, or the end of a seed."""
        if event["kind"] == "planned":
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
