"""The progress of a study in a terminal: one bar over all seeds of all runs, and one line per finished seed."""

from rich.progress import TaskID, TextColumn, TimeRemainingColumn

from ada2i import storage
from ada2i.jobs.events import Event
from ada2i.jobs.terminal import Terminal
from ada2i.studies.request import StudyRequest


class StudyProgress(Terminal):
    """Follows a study."""

    def __init__(self, uri: str) -> None:
        super().__init__("Starting the study on Ray…", TextColumn("left"), TimeRemainingColumn(), unit="seeds")
        self.names = StudyRequest.load(storage.join(uri, "request.json")).names
        self.bar: TaskID | None = None
        self.done = self.total = 0

    def show(self, event: Event) -> None:
        """Show the plan, or the end of a seed's training."""
        if event["kind"] == "planned":
            self.total = event["seeds"]
            self.bar = self.bars.add_task("training", total=self.total)
        elif event["kind"] in ("trained", "diverged"):
            self._seed(event)

    def _seed(self, event: Event) -> None:
        self.done += 1
        line = seed_line(self.names[event["run_id"]], event)
        self.console.print(f"{self.done:>4}/{self.total}  {line}", markup=False)
        if self.bar is not None:
            self.bars.update(self.bar, completed=self.done)


def seed_line(name: str, event: Event) -> str:
    """Return the end of a seed's training as one line."""
    if event["kind"] == "diverged":
        return f"{name}, seed {event['seed']}: {event['message']}"
    return f"{name}, seed {event['seed']}: dev wF1 {event['dev_weighted_f1']:.4f} after {event['seconds']:g} s"
