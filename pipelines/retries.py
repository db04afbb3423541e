"""A flow's step that is tried again: when, and after how long."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.client.schemas.objects import State, TaskRun

from ada2i.errors import Ada2iError

P = ParamSpec("P")
R = TypeVar("R")

# Longer than a storage blip, and than a dead driver's workers need to be gone.
_RETRY_SECONDS = [10.0, 60.0]


def retried(name: str | None = None) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Make a function a step that is tried again where that may help.

    Args:
        name: What Prefect shows; by default the function's name.
    """
    return task(name=name, retries=2, retry_delay_seconds=_RETRY_SECONDS, retry_condition_fn=retry_if_transient)


def retry_if_transient(_task: Any, _run: TaskRun, state: State[Any]) -> bool:
    """Tell whether a failed task may succeed on another try; Prefect passes the error as the state's data."""
    return isinstance(state.data, Ada2iError) and state.data.retryable
