"""Checks this machine: Python, packages, and free disk space."""

import importlib.metadata
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

from ada2i.doctor.check import Check, fail, ok, skipped, warn

_REASONS: Final = {
    "fastapi": "From 0.151 on Prefect's server does not start.",
    "sqlalchemy": "From 2.1 on Prefect's schedules stop silently.",
    "ray": "Ray Train changes between minor versions, and the cluster must have the same.",
    "opencv-python-headless": "5.0 lacks the face cascades.",
}
_GIB: Final = 2**30
_SHARED: Final = Path("/dev/shm")
_OBJECT_STORE: Final = 256 << 20  # bytes of a Ray head that is started here


def check_machine() -> Iterator[Check]:
    """Check Python, packages, and the free space of the disks that runs write to."""
    yield ok("Python", ".".join(map(str, sys.version_info[:3])))  # an earlier one cannot read these files
    yield from check_packages()
    yield check_room("temporary folder", Path(tempfile.gettempdir()), least=_GIB // 4, enough=2 * _GIB)
    if os.environ.get("RAY_API_SERVER_ADDRESS"):
        yield skipped("shared memory", "not needed: Ray runs elsewhere (RAY_API_SERVER_ADDRESS)")
    elif _SHARED.is_dir():
        yield check_room("shared memory", _SHARED, least=_OBJECT_STORE // 4, enough=_OBJECT_STORE)
    else:
        yield skipped("shared memory", f"there is no {_SHARED}; Ray uses the temporary folder, which is slower")


def check_packages() -> Iterator[Check]:
    """Compare installed packages with the bounds that this package declares."""
    try:
        declared = [Requirement(text) for text in importlib.metadata.requires("ada2i") or []]
    except importlib.metadata.PackageNotFoundError:
        yield fail("packages", "ada2i itself is not installed", "Run: pip install -c constraints.txt -e .")
        return
    problems = [problem for one in declared if (problem := _problem(one)) is not None]
    yield from problems
    if not problems:
        yield ok("packages", f"{sum(_installed(one.name) is not None for one in declared)} within their bounds")


def _problem(needed: Requirement) -> Check | None:
    always = needed.marker is None or needed.marker.evaluate({"extra": ""})
    found = _installed(needed.name)
    if found is None:
        todo = f"Run: pip install -c constraints.txt '{needed.name}{needed.specifier}'"
        return fail(f"package {needed.name}", "not installed", todo) if always else None
    if needed.specifier.contains(found, prereleases=True):
        return None
    reason = _REASONS.get(needed.name.lower(), "Other versions were not tested.")
    todo = f"{reason} Run: pip install -c constraints.txt '{needed.name}{needed.specifier}'"
    return (fail if always else warn)(f"package {needed.name}", f"{found}, but {needed.specifier} is needed", todo)


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_room(name: str, folder: Path, *, least: int, enough: int) -> Check:
    """Check the free space of a folder's disk.

    Args:
        name: Name of the check.
        folder: An existing folder.
        least: Bytes below which runs fail.
        enough: Bytes below which runs may fail.
    """
    free = shutil.disk_usage(folder).free
    found = f"{free / _GIB:.1f} GiB free in {folder}"
    if free >= enough:
        return ok(name, found)
    todo = f"Free some space: {enough / _GIB:.2g} GiB is enough for small runs."
    return (warn if free >= least else fail)(name, found, todo)
