"""Durations as the command line takes them, such as ``90d``."""

import re

from ada2i.errors import ConfigError

_DURATION = re.compile(r"([0-9]{1,9})([smhdw])")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}


def seconds(option: str, text: str) -> float:
    """Return a duration such as ``90d`` in seconds.

    Raises:
        ConfigError: It is not a whole number of at most 9 digits followed by one of s, m, h, d, w.
    """
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ConfigError(
            f"`{option}` must be a whole number followed by s, m, h, d or w, but is {text[:40]!r}. Write for example "
            f"`{option} 90d`.",
            field=option,
        )
    return int(found[1]) * _SECONDS[found[2]]
