"""The entry point of every job: ``python -m ada2i.jobs.driver MODULE:FUNCTION URI SUBMISSION REQUEST``."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from ada2i import storage
from ada2i.errors import Ada2iError, InputError
from ada2i.jobs import events, logs

JOBS: Final = (
    "ada2i.extraction.job:drive",
    "ada2i.prediction.job:drive",
    "ada2i.search.job:drive",
    "ada2i.studies.job:drive",
    "ada2i.training.launch:drive",
)
"""All drivers; no other function can be started.

Each takes the URI of its run's folder, the job's submission id, and the SHA-256 of the request that the caller
submitted. A driver refuses a stored request with another digest: who can write to the storage cannot choose what runs.
"""


def main(name: str, uri: str, submission: str, request: str) -> None:
    """Run a job's driver.

    Raises:
        InputError: The name is not one of ``JOBS``.
    """
    if name not in JOBS:
        raise InputError(f"A job must be one of {', '.join(JOBS)}, but is {name!r}. Submit one of these.")
    module, _, function = name.partition(":")
    getattr(importlib.import_module(module), function)(uri, submission, request)


@contextmanager
def report_errors(uri: str) -> Iterator[None]:
    """Report an error of this package to the followers of the job, which raise it, and end this process.

    Any other error is raised here, and appears in the job's log.

    Raises:
        SystemExit: The block raised an error of this package; with its exit code.
    """
    logs.configure(run_id=storage.name_of(uri))
    try:
        yield
    except Exception as problem:
        ours = cause(problem)
        if ours is None:
            raise
        events.emit("error", level="error", error=type(ours).__name__, message=ours.message)
        raise SystemExit(ours.exit_code) from problem


def cause(problem: BaseException) -> Ada2iError | None:
    """Return the first worker's error of this package in an exception from Ray, or None."""
    failures: dict[int, Any] = getattr(problem, "worker_failures", {})
    for candidate in (problem, problem.__cause__, *failures.values()):
        inner = getattr(candidate, "cause", candidate)
        if isinstance(inner, Ada2iError):
            return inner
    return None


if __name__ == "__main__":
    main(*sys.argv[1:])
