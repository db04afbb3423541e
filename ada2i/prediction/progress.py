"""The progress of a prediction in a terminal: a bar over utterances, with rate and time left."""

from functools import partial

from ada2i.display import count
from ada2i.jobs.events import Event
from ada2i.jobs.terminal import CountingTerminal, rate_text, started_line

_rate = partial(rate_text, digits=0)


class TerminalProgress(CountingTerminal):
    """Follows a prediction."""

    def __init__(self) -> None:
        opening = "Starting prediction…"
        super().__init__(opening, line, bar=lambda _: "predicting", rate=_rate, unit="utterances")


def line(event: Event) -> str:
    """Return an event of a prediction as one line, for logs."""
    if event["kind"] == "started":
        return started_line(event, "prediction")
    if event["kind"] == "planned":
        return f"{count(event['shards'], 'shard')}, {event['done']} of them predicted before"
    return f"{event['done']:>9,}/{event['total']:,} utterances  {_rate(event)}"
