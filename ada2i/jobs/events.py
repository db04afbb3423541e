"""Events that a running job reports to its followers: one JSON line each, in the job's log."""

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from ada2i.jobs import logs

_REPORT_SECONDS = 0.5  # between two reports of progress
_MARK = '{"ada2i_event": '

Event = dict[str, Any]  # `kind` names it: started, first_step, epoch, error...; `time` and `run_id` say when and where


def emit(kind: str, **facts: Any) -> None:
    """Write an event to standard output; Ray copies it into the job's log."""
    sys.stdout.write(f"{json.dumps({'ada2i_event': kind, **logs.facts(), **facts})}\n")
    sys.stdout.flush()


def parse(log: str) -> Iterator[Event | str]:
    """Yield the events of some lines of a job's log; yield other lines, and garbled events, unchanged."""
    for line in log.splitlines():
        _, mark, rest = line.partition(_MARK)  # Ray prepends the worker's name
        try:
            facts = json.loads(mark + rest) if mark else {}
        except json.JSONDecodeError:
            facts = {}
        yield {"kind": facts.pop("ada2i_event"), **facts} if facts else line


class Progress:
    """Reports the progress of a count, with rate and time left, at most twice a second and at its end."""

    def __init__(
        self,
        report: Callable[..., None],
        total: int,
        *,
        before: int = 0,
        digits: int = 1,
        begun: float | None = None,
        **facts: Any,
    ) -> None:
        """Start counting.

        Args:
            report: Called like ``emit``.
            total: The count at the end.
            before: The part that an earlier attempt did.
            digits: Decimal places of the rate.
            begun: The start, in ``time.monotonic`` seconds; by default now.
            facts: Additional fields of each event.
        """
        self.done, self.total = before, total
        self._report, self._before, self._digits, self._facts = report, before, digits, facts
        self._begun = time.monotonic() if begun is None else begun
        self._reported = -math.inf

    def add(self, number: int, **facts: Any) -> None:
        """Add to the count, and report unless the last report is too recent."""
        self.done += number
        now = time.monotonic()
        if self.done < self.total and now - self._reported < _REPORT_SECONDS:
            return
        self._reported = now
        rate = (self.done - self._before) / max(now - self._begun, 1e-3)
        left = round((self.total - self.done) / rate) if rate else 0
        numbers = {"done": self.done, "total": self.total, "per_second": round(rate, self._digits)}
        self._report("progress", **self._facts, **numbers, seconds_left=left, **facts)
