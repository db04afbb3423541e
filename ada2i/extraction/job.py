"""An extraction as a Ray job: ``python -m ada2i.extraction.job URI SUBMISSION``. The only file here that knows Ray.

The driver plans, hands chunks to workers and assembles; vectors go from workers to storage and from there to the
driver. Whatever is killed, the next attempt finds all chunks that were written, and ends in the same bytes.
"""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ada2i import errors, storage
from ada2i.extraction.config import ExtractionConfig
from ada2i.extraction.request import Request, is_done
from ada2i.extraction.run import Call, extract
from ada2i.extraction.work import Worker
from ada2i.jobs import driver, events

_RESTARTS = 3  # of a worker that dies, and further tries of the chunk that it died with
_REPLACEMENT_SECONDS = 30.0  # that a node which is being replaced has to come back
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_GAUGES: Mapping[str, str] = {
    "done": "Vectors made by this attempt",
    "per_second": "Vectors made per second, all workers",
    "seconds_left": "Seconds until the modality is done",
}


def drive(uri: str) -> None:
    """Run the job's side: check the cluster, and extract on its workers."""
    if is_done(uri):
        return
    import ray

    request = Request.load(storage.join(uri, "request.json"))
    ray.init()
    cuda = _wait_for_resources(request.config, ray.cluster_resources)
    events.emit("started", run_id=request.run_id, workers=request.config.workers, device="cuda" if cuda else "cpu")
    extract(uri, request, RayCrew(request, cuda=cuda))


def _wait_for_resources(config: ExtractionConfig, available: Callable[[], Mapping[str, float]]) -> bool:
    """Tell whether to encode on GPUs; a node that is being replaced has some time to come back.

    Raises:
        ResourceError: The cluster has fewer processors or GPUs than workers.
    """
    deadline = time.monotonic() + _REPLACEMENT_SECONDS
    while (cpus := available().get("CPU", 0.0)) < config.workers:
        if time.monotonic() > deadline:
            raise errors.ResourceError(
                f"`workers` = {config.workers} needs as many CPUs, but the cluster has {cpus:g}. Ask for fewer "
                "with `--workers`, or add nodes.",
                field="workers",
            )
        time.sleep(1.0)
    gpus = int(available().get("GPU", 0))
    if config.device == "cuda" and gpus < config.workers:
        raise errors.ResourceError(
            f"`device` = cuda needs {config.workers} GPUs, one per worker, but the cluster has {gpus}. Ask for fewer "
            "workers, or set `device=cpu`.",
            field="device",
        )
    return config.device == "cuda" or (config.device == "auto" and gpus >= config.workers)


class RayCrew:
    """The workers of one extraction, each an actor with one processor, which Ray starts again when it dies."""

    def __init__(self, request: Request, *, cuda: bool) -> None:
        import ray
        from ray.util.metrics import Gauge

        tags = ("run", "modality")
        self._gauges = {n: Gauge(f"ada2i_extraction_{n}", description=t, tag_keys=tags) for n, t in _GAUGES.items()}
        self._run_id = request.run_id
        actor = ray.remote(Worker).options(
            num_cpus=1,
            num_gpus=int(cuda),
            max_restarts=_RESTARTS,
            max_task_retries=_RESTARTS,
            runtime_env={"env_vars": _ONE_THREAD},
        )
        arguments = (request.root, request.config, "cuda" if cuda else "cpu")
        self._workers = [actor.remote(*arguments) for _ in range(request.config.workers)]

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
                    f"{str(problem).splitlines()[0]} If memory was short, lower `workers` or `chunk`; then run again."
                ) from problem
            yield answer

    def tell(self, kind: str, **facts: Any) -> None:
        """Tell the followers of the job's log, and Ray's metrics."""
        events.emit(kind, **facts)
        if kind == "progress":
            for name, gauge in self._gauges.items():
                gauge.set(float(facts[name]), tags={"run": self._run_id, "modality": facts["modality"]})


if __name__ == "__main__":
    sys.exit(driver.run(lambda: drive(sys.argv[1])))
