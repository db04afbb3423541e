"""An extraction as a Ray job: ``python -m ada2i.extraction.job URI SUBMISSION``. The only file here that knows Ray.

The driver plans, hands chunks to workers and assembles; vectors go from workers to storage and from there to the
driver. Whatever is killed, the next attempt finds all chunks that were written, and ends in the same bytes.
"""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from ada2i import errors, storage
from ada2i.extraction.config import ExtractionConfig
from ada2i.extraction.metrics import METRICS
from ada2i.extraction.request import ExtractionRequest, is_done
from ada2i.extraction.run import extract
from ada2i.extraction.work import Worker
from ada2i.jobs import driver, events
from ada2i.jobs.crew import Crew
from ada2i.jobs.metrics import Gauges
from ada2i.modalities import Modality

_REPLACEMENT_SECONDS = 30.0  # that a node which is being replaced has to come back


def drive(uri: str) -> None:
    """Run the job's side: check the cluster, and extract on its workers."""
    if is_done(uri):
        return
    import ray

    request = ExtractionRequest.load(storage.join(uri, "request.json"))
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


class RayCrew(Crew):
    """The workers of one extraction."""

    def __init__(self, request: ExtractionRequest, *, cuda: bool) -> None:
        self._encoders = {modality: choice.spec for modality, choice in request.config.encoders.items()}
        self._gauges = Gauges(METRICS, run=request.run_id)
        arguments = (request.root, request.config, "cuda" if cuda else "cpu")
        super().__init__(Worker, arguments, workers=request.config.workers, cuda=cuda)

    def tell(self, kind: str, **facts: Any) -> None:
        """Tell the followers of the job's log, and Ray's metrics."""
        events.emit(kind, **facts)
        if kind == "planned":
            for modality, work in facts["work"].items():
                self._set(modality, to_encode=work["encoded"], reused=work["reused"])
        elif kind == "progress":
            names = ("done", "per_second", "seconds_left")
            self._set(facts["modality"], **{name: facts[name] for name in names})
            for problem, number in facts["lost"].items():
                self._set(facts["modality"], problem=problem, lost=number)

    def _set(self, modality: Modality, problem: str | None = None, **values: float) -> None:
        tags = {"modality": modality, "encoder": self._encoders[modality]} | ({"problem": problem} if problem else {})
        for name, value in values.items():
            self._gauges.set(f"extraction_{name}", value, **tags)


if __name__ == "__main__":
    sys.exit(driver.run(lambda: drive(sys.argv[1]), sys.argv[1]))
