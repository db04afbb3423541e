"""What a look at one thing found."""

from typing import Literal

from ada2i.records import Record


class Check(Record):
    """One finding.

    Attributes:
        name: What was looked at.
        status: ``warn``: runs work, but something else may not. ``fail``: runs do not.
        found: What was found.
        todo: What to do; empty where nothing is.
    """

    name: str
    status: Literal["ok", "warn", "fail", "skipped"]
    found: str
    todo: str = ""


def ok(name: str, found: str) -> Check:
    """Return a finding that needs nothing."""
    return Check(name=name, status="ok", found=found)


def warn(name: str, found: str, todo: str) -> Check:
    """Return a finding that runs can live with."""
    return Check(name=name, status="warn", found=found, todo=todo)


def fail(name: str, found: str, todo: str) -> Check:
    """Return a finding that keeps runs from working."""
    return Check(name=name, status="fail", found=found, todo=todo)


def skipped(name: str, found: str) -> Check:
    """Return why nothing was looked at."""
    return Check(name=name, status="skipped", found=found)
