"""What a running job tells whoever follows it: one JSON line per event, found again in the job's log."""

import json
import sys
from collections.abc import Iterator
from typing import Any

_MARK = "ada2i-event "

Event = dict[str, Any]  # `kind` says which: started, first_step, epoch, seed, error


def emit(kind: str, **facts: Any) -> None:
    """Write an event to standard output, from where Ray carries it into the job's log."""
    sys.stdout.write(f"{_MARK}{json.dumps({'kind': kind} | facts)}\n")
    sys.stdout.flush()


def parse(log: str) -> Iterator[Event | str]:
    """Yield the events of some lines of a job's log; other lines, and events garbled by others' output, as they are."""
    for line in log.splitlines():
        _, mark, text = line.partition(_MARK)  # Ray puts the worker's name in front
        try:
            yield json.loads(text) if mark else line
        except json.JSONDecodeError:
            yield line
