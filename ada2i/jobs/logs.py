"""Log lines of this process on standard error: plain, or with ``ADA2I_LOG_FORMAT=json`` one JSON object per line.

A line has the time, the level, the message and the run's id; a worker's line also has its rank.
"""

import json
import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from ada2i.display import PlainConsole
from ada2i.errors import ConfigError

FORMAT: Final = "ADA2I_LOG_FORMAT"

_facts: dict[str, Any] = {}


def configure(**facts: Any) -> None:
    """Set the facts that this process's log lines and events carry.

    Args:
        facts: Fields of every line from now on, such as ``run_id`` and ``rank``.

    Raises:
        ConfigError: The environment names an unknown format.
    """
    _facts.update(facts)
    handler = logging.StreamHandler()
    if as_json():
        handler.setFormatter(_JsonLines())
    else:
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])  # unless logging is configured already
    logging.getLogger("ada2i").setLevel(logging.INFO if as_json() else logging.WARNING)


def as_json() -> bool:
    """Return whether log lines are JSON.

    Raises:
        ConfigError: The environment names an unknown format.
    """
    wanted = os.environ.get(FORMAT, "plain")
    if wanted not in ("plain", "json"):
        raise ConfigError(f"{FORMAT} must be `plain` or `json`, but is {wanted!r}. Correct the variable, or unset it.")
    return wanted == "json"


def environment() -> dict[str, str]:
    """Return the environment variables that make other processes write the same lines."""
    return {FORMAT: "json"} if as_json() else {}


def facts() -> Mapping[str, Any]:
    """Return the fields of every line of this process, with the time."""
    return {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "level": "info", **_facts}


def notes() -> PlainConsole:
    """Return the console for a command's progress: standard error, unless that is used for JSON log lines."""
    return PlainConsole(stderr=True, soft_wrap=True, quiet=as_json())


class _JsonLines(logging.Formatter):
    """A record as one JSON object; the ``facts`` of ``extra`` are added to the message."""

    def format(self, record: logging.LogRecord) -> str:
        own = {"level": record.levelname.lower(), "event": record.getMessage(), "logger": record.name}
        line = {**facts(), **own, **getattr(record, "facts", {})}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps({name: value for name, value in line.items() if name != "kind"})  # `kind` belongs to events
