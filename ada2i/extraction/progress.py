"""The progress of an extraction in a terminal: a bar for each modality, with rate and time left."""

from functools import partial
from operator import itemgetter

from ada2i.jobs.events import Event
from ada2i.jobs.terminal import CountingTerminal, rate_text, started_line

_rate = partial(rate_text, digits=1)


class TerminalProgress(CountingTerminal):
    """Follows an extraction."""

    def __init__(self) -> None:
        super().__init__("Starting extraction…", line, bar=itemgetter("modality"), rate=_rate)


def line(event: Event) -> str:
    """Return an event of an extraction as one line, for logs."""
    if event["kind"] == "started":
        return started_line(event, "extraction")
    if event["kind"] == "planned":
        work = event["work"].items()
        return "; ".join(f"{m}: {one['encoded']} to encode, {one['reused']} encoded before" for m, one in work)
    return f"{event['modality']:<6} {event['done']:>6}/{event['total']}  {_rate(event)}"
