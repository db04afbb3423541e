"""Runs a job's tasks on workers of its cluster; all parallel work on Ray except training goes through this.

Workers are actors that load the tasks' common data once. Ray restarts a worker that died, and repeats its task. So a
task must give the same result when it is repeated, or resume from what it wrote.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

from ada2i.errors import JobError, PreemptedError
from ada2i.jobs import preemption

_RESTARTS = 3  # restarts of a worker that died, and repetitions of its task
_POLL_SECONDS = 1.0
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Environment of workers that compute with one thread."""

Call: TypeAlias = tuple[str, tuple[Any, ...]]
"""A task: the name of a worker's method, and its arguments."""

RunTasks: TypeAlias = Callable[[Iterable[Call]], Iterator[Any]]
"""Runs tasks on workers and yields their results in order of completion: ``run_tasks`` on some pool."""


def run_here(worker: Any) -> RunTasks:
    """Return what runs tasks on one worker in this process, in their order.

    Args:
        worker: An object of the worker's class.
    """

    def run_tasks(calls: Iterable[Call]) -> Iterator[Any]:
        return (getattr(worker, method)(*arguments) for method, arguments in calls)

    return run_tasks


class Host:
    """The actor around a worker."""

    def __init__(self, worker: type, arguments: tuple[Any, ...]) -> None:
        preemption.listen_as_worker()
        self._worker = worker(*arguments)

    def call(self, method: str, arguments: tuple[Any, ...]) -> Any:
        """Run a task."""
        self._leave_alone()
        try:
            return getattr(self._worker, method)(*arguments)
        except PreemptedError:
            self._leave_alone()
            raise

    def _leave_alone(self) -> None:
        """End this process if it was requested to leave, but the job continues: Ray restarts it on another node."""
        if preemption.requested() and not preemption.requested_by_driver():
            os._exit(1)


def start_workers(
    worker: type, arguments: tuple[Any, ...], *, workers: int, cpus: float = 1.0, gpus: float = 0.0
) -> Any:
    """Return an ``ActorPool`` of workers; the workers end when the pool is deleted.

    Args:
        worker: The workers' class.
        arguments: Arguments of its constructor.
        workers: Number of workers.
        cpus: CPUs per worker.
        gpus: GPUs per worker, at most 1; several workers may share one.
    """
    import ray
    from ray.util import ActorPool

    actor: Any = ray.remote(Host).options(
        num_cpus=cpus,
        num_gpus=gpus,
        max_restarts=_RESTARTS,
        max_task_retries=_RESTARTS,
        runtime_env={"env_vars": ONE_THREAD},
    )
    return ActorPool([actor.remote(worker, arguments) for _ in range(workers)])


def run_tasks(pool: Any, calls: Iterable[Call], *, last: bool = False) -> Iterator[Any]:
    """Run tasks on the workers of a pool; yield their results in order of completion.

    Args:
        pool: The pool from ``start_workers``.
        calls: The tasks; to a deque, more may be appended while results are read.
        last: Whether no other tasks follow these: a worker without a task then ends, and frees its CPUs for one that
            Ray has to restart.

    Raises:
        JobError: A worker died more often than it is restarted.
        PreemptedError: The job was requested to leave. Running tasks have ended.
    """
    from ray.exceptions import RayActorError

    waiting = calls if isinstance(calls, deque) else deque(calls)
    done, left = 0, False
    while waiting or pool.has_next():
        while waiting and pool.has_free() and not preemption.requested():
            pool.submit(lambda host, call: host.call.remote(*call), waiting.popleft())
        if not pool.has_next():
            left = True
            break
        while last and not waiting and pool.has_free():
            pool.pop_idle()
        try:
            result = pool.get_next_unordered(timeout=_POLL_SECONDS)
        except TimeoutError:
            continue
        except PreemptedError:  # a task left before its end, as all other tasks of the job do
            left = True
            continue
        except RayActorError as problem:
            raise JobError(
                f"A worker must finish its task, but died {_RESTARTS + 1} times: {str(problem).splitlines()[0]} "
                "If memory was short, lower `workers` or the size of chunks; then run again."
            ) from problem
        done += 1
        yield result
    if left:
        raise preemption.error(f"{done} tasks")
