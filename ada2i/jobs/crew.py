"""Workers of a job: actors with one processor each, which Ray starts again when they die."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

from ada2i import errors

_RESTARTS = 3  # of a worker that dies, and further tries of what it died with
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

Call: TypeAlias = tuple[str, tuple[Any, ...]]  # a worker's method, and its arguments


class Crew:
    """Some workers of one kind; they end with the object."""

    def __init__(self, worker: type, arguments: tuple[Any, ...], *, workers: int, cuda: bool) -> None:
        """Start them.

        Args:
            worker: Their class.
            arguments: Of its constructor.
            workers: How many.
            cuda: Whether each has a GPU.
        """
        import ray

        actor: Any = ray.remote(worker).options(
            num_cpus=1,
            num_gpus=int(cuda),
            max_restarts=_RESTARTS,
            max_task_retries=_RESTARTS,
            runtime_env={"env_vars": _ONE_THREAD},
        )
        self._workers = [actor.remote(*arguments) for _ in range(workers)]

    def each(self, calls: Iterable[Call]) -> Iterator[Any]:
        """Call methods on whichever worker is idle; yield what they return, in the order in which they end.

        Raises:
            JobError: A worker died more often than it is started again.
        """
        import ray

        waiting, idle, busy = deque(calls), deque(self._workers), dict[Any, Any]()
        while waiting or busy:
            while waiting and idle:
                worker, (method, arguments) = idle.popleft(), waiting.popleft()
                busy[getattr(worker, method).remote(*arguments)] = worker
            (ready, *_), _ = ray.wait(list(busy), num_returns=1)
            idle.append(busy.pop(ready))
            try:
                answer = ray.get(ready)
            except ray.exceptions.RayActorError as problem:
                raise errors.JobError(
                    f"A worker must live through its chunk, but died {_RESTARTS + 1} times: "
                    f"{str(problem).splitlines()[0]} If memory was short, lower `workers` or the size of chunks; then "
                    "run again."
                ) from problem
            yield answer
