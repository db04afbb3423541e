"""The result of a check."""

from typing import Literal

from ada2i.records import Record


class Check(Record):
    """One finding.

    Attributes:
        name: What was checked.
        status: ``warn``: runs work, but something else may not. ``fail``: runs do not work.
        found: What was found.
        todo: What to do; empty if nothing is needed.
    """

    name: str
    status: Literal["ok", "warn", "fail", "skipped"]
    found: str
    todo: str = ""


def ok(name: str, found: str) -> Check:
    """Return a finding that needs no action."""
    return Check(name=name, status="ok", found=found)


def warn(name: str, found: str, todo: str) -> Check:
    """Return a finding that does not prevent runs."""
    return Check(name=name, status="warn", found=found, todo=todo)


def fail(name: str, found: str, todo: str) -> Check:
    """Return a finding that prevents runs."""
    return Check(name=name, status="fail", found=found, todo=todo)


def skipped(name: str, found: str) -> Check:
    """Return a finding that says why a check was skipped."""
    return Check(name=name, status="skipped", found=found)
