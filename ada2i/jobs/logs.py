"""Log lines of this process: for people, or with ``ADA2I_LOG_FORMAT=json`` one JSON object a line, on standard error.

A line carries the time, the level, what was said, and which run it is about, with the worker's rank where there is one.
"""

import json
import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Console

from ada2i.errors import ConfigError

FORMAT: Final = "ADA2I_LOG_FORMAT"

_facts: dict[str, Any] = {}


def configure(**facts: Any) -> None:
    """Have this process's log lines, and its events, say what they are about.

    Args:
        facts: What every line from now on carries, such as ``run_id`` and ``rank``.

    Raises:
        ConfigError: The environment asks for a format that there is none of.
    """
    _facts.update(facts)
    handler = logging.StreamHandler()
    if as_json():
        handler.setFormatter(_JsonLines())
    else:
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])  # where nobody else did
    logging.getLogger("ada2i").setLevel(logging.INFO if as_json() else logging.WARNING)


def as_json() -> bool:
    """Tell whether lines are to be JSON.

    Raises:
        ConfigError: The environment asks for a format that there is none of.
    """
    wanted = os.environ.get(FORMAT, "plain")
    if wanted not in ("plain", "json"):
        raise ConfigError(f"{FORMAT} must be `plain` or `json`, but is {wanted!r}. Mend the variable, or unset it.")
    return wanted == "json"


def environment() -> dict[str, str]:
    """Return what makes other processes write the same lines."""
    return {FORMAT: "json"} if as_json() else {}


def facts() -> Mapping[str, Any]:
    """Return what every line of this process carries, with the time."""
    return {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "level": "info", **_facts}


def notes() -> Console:
    """Return where a command says how it goes: standard error, which belongs to the log where lines are JSON."""
    return Console(stderr=True, highlight=False, soft_wrap=True, quiet=as_json())


class _JsonLines(logging.Formatter):
    """A record as one JSON object; what ``extra`` holds under ``facts`` stands beside the message."""

    def format(self, record: logging.LogRecord) -> str:
        own = {"level": record.levelname.lower(), "event": record.getMessage(), "logger": record.name}
        line = {**facts(), **own, **getattr(record, "facts", {})}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps({name: value for name, value in line.items() if name != "kind"})  # an event's own name
