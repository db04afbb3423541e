"""The job's side: how a driver ends, so that whoever follows it learns why."""

from collections.abc import Callable
from typing import Any

from ada2i import errors
from ada2i.jobs import events, logs


def run(drive: Callable[[], None], uri: str) -> int:
    """Run a driver on the folder of its run; return the exit code of its process.

    An error of ours is told to the followers, who raise it; any other is raised here, and ends up in the job's log.
    """
    logs.configure(run_id=uri.rsplit("/", 1)[1])
    try:
        drive()
    except Exception as problem:
        ours = cause(problem)
        if ours is None:
            raise
        events.emit("error", level="error", error=type(ours).__name__, message=ours.message)
        return ours.exit_code
    return 0


def cause(problem: BaseException) -> errors.Ada2iError | None:
    """Find our own error in what Ray raised: the first one that a worker failed with."""
    failures: dict[int, Any] = getattr(problem, "worker_failures", {})
    for candidate in (problem, problem.__cause__, *failures.values()):
        inner = getattr(candidate, "cause", candidate)
        if isinstance(inner, errors.Ada2iError):
            return inner
    return None
