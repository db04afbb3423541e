"""The versions that must agree on all sides of a job: ``python -m ada2i.jobs.versions`` reports them as an event."""

import importlib.metadata
import platform
from typing import Final

from ada2i.jobs import events

PACKAGES: Final = ("ada2i", "ray", "torch")


def versions() -> dict[str, str]:
    """Return the versions of Python, to the patch, and of the packages that are installed here."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "none"
    return found


if __name__ == "__main__":
    events.emit("versions", **versions())
