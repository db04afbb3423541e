"""How a running prediction looks in a terminal: a bar over utterances, with rate and time left."""

import time

from rich.progress import TaskID, TextColumn

from ada2i.jobs.events import Event
from ada2i.jobs.terminal import Terminal

_QUIET_SECONDS = 10.0  # between two lines where there is no bar


class TerminalProgress(Terminal):
    """Follows a prediction."""

    def __init__(self) -> None:
        super().__init__("Starting prediction on Ray…", TextColumn("{task.fields[rate]}"), unit="utterances")
        self.bar: TaskID | None = None
        self.told = -_QUIET_SECONDS

    def show(self, event: Event) -> None:
        """Show a start, a plan or progress."""
        if event["kind"] in ("started", "planned"):
            self.console.print(line(event))
        elif event["kind"] == "progress":
            self._progress(event)

    def _progress(self, event: Event) -> None:
        if self.bars.disable:
            now = time.monotonic()
            if event["done"] == event["total"] or now - self.told > _QUIET_SECONDS:
                self.told = now
                self.console.print(line(event))
            return
        if self.bar is None:
            self.bar = self.bars.add_task("predicting", total=event["total"], rate="")
        self.bars.update(self.bar, completed=event["done"], rate=_rate(event))


def line(event: Event) -> str:
    """Return an event of a prediction in one line, for logs."""
    if event["kind"] == "started":
        return f"{event['workers']} workers on {event['device']}, prediction {event['run_id']}"
    if event["kind"] == "planned":
        return f"{event['shards']} shards, {event['done']} of them predicted before"
    return f"{event['done']:>9,}/{event['total']:,} utterances  {_rate(event)}"


def _rate(event: Event) -> str:
    minutes, seconds = divmod(event["seconds_left"], 60)
    return f"{event['per_second']:,.0f}/s  {minutes}:{seconds:02} left"
