"""What a running job tells whoever follows it: one JSON line per event, found again in the job's log."""

import json
import sys
from collections.abc import Iterator
from typing import Any

from ada2i.jobs import logs

_MARK = '{"ada2i_event": '

Event = dict[str, Any]  # `kind` says which: started, first_step, epoch, error...; `time`, `run_id` when and where


def emit(kind: str, **facts: Any) -> None:
    """Write an event to standard output, from where Ray carries it into the job's log."""
    sys.stdout.write(f"{json.dumps({'ada2i_event': kind, **logs.facts(), **facts})}\n")
    sys.stdout.flush()


def parse(log: str) -> Iterator[Event | str]:
    """Yield the events of some lines of a job's log; other lines, and events garbled by others' output, as they are."""
    for line in log.splitlines():
        _, mark, rest = line.partition(_MARK)  # Ray puts the worker's name in front
        try:
            facts = json.loads(mark + rest) if mark else {}
        except json.JSONDecodeError:
            facts = {}
        yield {"kind": facts.pop("ada2i_event"), **facts} if facts else line
