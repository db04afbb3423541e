"""A prediction as a Ray job: ``python -m ada2i.prediction.job URI SUBMISSION``. The only file here that knows Ray.

The driver hands shards to workers, each of which loads the model once; rows go from storage to a worker and from there
to storage. Whatever is killed, the next attempt finds all parts that were written, and ends in the same bytes.
"""

import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from ada2i import storage
from ada2i.errors import NotFoundError
from ada2i.jobs import driver, events
from ada2i.jobs.crew import Crew
from ada2i.jobs.environment import revision
from ada2i.jobs.metrics import Gauges
from ada2i.jobs.resources import check_resources
from ada2i.prediction.metrics import METRICS
from ada2i.prediction.records import REQUEST, PredictionRequest, is_done, sweep
from ada2i.prediction.run import predict
from ada2i.prediction.worker import Worker

_PACKAGE = Path(__file__).resolve().parents[1]


def drive(uri: str) -> None:
    """Run the job's side: check the cluster, and predict on its workers."""
    if is_done(uri):
        sweep(uri)
        return
    import ray

    request = PredictionRequest.load(storage.join(uri, REQUEST))
    ray.init()
    cuda = check_resources(request.resources, ray.cluster_resources())  # type: ignore[no-untyped-call]
    workers, device = request.resources.workers, "cuda" if cuda else "cpu"
    events.emit("started", run_id=request.run_id, workers=workers, device=device)
    code = revision(_PACKAGE) or f"ada2i {metadata.version('ada2i')}"
    try:
        predict(uri, request, RayCrew(uri, request, cuda=cuda), code=code)
    except NotFoundError:
        # An equal prediction at the same time was complete first, and deleted what this one still had to read.
        if not is_done(uri):
            raise
        sweep(uri)


class RayCrew(Crew):
    """The workers of one prediction."""

    def __init__(self, uri: str, request: PredictionRequest, *, cuda: bool) -> None:
        tags = {"run": request.run_id, "model": request.version.model, "version": str(request.version.number)}
        self._gauges = Gauges(METRICS, **tags)
        workers = min(request.resources.workers, len(request.shards)) or 1
        super().__init__(Worker, (uri, request, "cuda" if cuda else "cpu"), workers=workers, cuda=cuda)

    def tell(self, kind: str, **facts: Any) -> None:
        """Tell the followers of the job's log, and Ray's metrics."""
        events.emit(kind, **facts)
        if kind == "progress":
            for name in ("done", "per_second", "seconds_left"):
                self._gauges.set(f"prediction_{name}", facts[name])


if __name__ == "__main__":
    sys.exit(driver.run(lambda: drive(sys.argv[1]), sys.argv[1]))
