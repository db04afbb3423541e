"""How a running extraction looks in a terminal: a bar for each modality, with rate and time left."""

import time

from rich.progress import TaskID, TextColumn

from ada2i.jobs.events import Event
from ada2i.jobs.terminal import Terminal

_QUIET_SECONDS = 10.0  # between two lines where there are no bars


class TerminalProgress(Terminal):
    """Follows an extraction."""

    def __init__(self) -> None:
        super().__init__("Starting extraction on Ray…", TextColumn("{task.fields[rate]}"))
        self.tasks: dict[str, TaskID] = {}
        self.told = -_QUIET_SECONDS

    def show(self, event: Event) -> None:
        """Show a start, a plan or progress."""
        if event["kind"] == "progress":
            self._progress(event)
        elif event["kind"] in ("started", "planned"):
            self.console.print(line(event))

    def _progress(self, event: Event) -> None:
        if self.bars.disable:
            now = time.monotonic()
            if event["done"] == event["total"] or now - self.told > _QUIET_SECONDS:
                self.told = now
                self.console.print(line(event))
            return
        modality = event["modality"]
        if modality not in self.tasks:
            self.tasks[modality] = self.bars.add_task(modality, total=event["total"], rate="")
        self.bars.update(self.tasks[modality], completed=event["done"], rate=_rate(event))


def line(event: Event) -> str:
    """Return an event of an extraction in one line, for logs."""
    if event["kind"] == "started":
        return f"{event['workers']} workers on {event['device']}, extraction {event['run_id']}"
    if event["kind"] == "planned":
        work = event["work"].items()
        return "; ".join(f"{m}: {one['encoded']} to encode, {one['reused']} made before" for m, one in work)
    return f"{event['modality']:<6} {event['done']:>6}/{event['total']}  {_rate(event)}"


def _rate(event: Event) -> str:
    minutes, seconds = divmod(event["seconds_left"], 60)
    return f"{event['per_second']:,.1f}/s  {minutes}:{seconds:02} left"
