"""When a failed step is tried again, and after how long."""

from typing import Any

from prefect.client.schemas.objects import State, TaskRun

from ada2i.errors import Ada2iError

# Longer than a storage blip, and than a dead driver's workers need to be gone.
RETRY_SECONDS = [10.0, 60.0]


def retry_if_transient(_task: Any, _run: TaskRun, state: State[Any]) -> bool:
    """Tell whether a failed task may succeed on another try; Prefect passes the error as the state's data."""
    return isinstance(state.data, Ada2iError) and state.data.retryable
