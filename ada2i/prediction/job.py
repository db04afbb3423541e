"""A prediction as a Ray job. The only file of this package that knows Ray.

The driver hands shards to workers, each of which loads the model once. Workers read rows from storage and write parts
to storage. After any kill, the next attempt finds all parts that were written, and produces the same bytes.
"""

from functools import partial
from typing import Any

from ada2i import storage
from ada2i.errors import NotFoundError
from ada2i.jobs import driver, events, preemption
from ada2i.jobs.fanout import run_tasks, start_workers
from ada2i.jobs.metrics import Gauges, Metric
from ada2i.jobs.resources import place
from ada2i.prediction.records import REQUEST, PredictionRequest, is_done, sweep
from ada2i.prediction.run import code, predict
from ada2i.prediction.worker import Worker

_TAGS = ("run", "model", "version")

METRICS = (
    Metric("prediction_done", "Utterances predicted, including those of earlier attempts", _TAGS),
    Metric("prediction_per_second", "Utterances predicted per second, all workers", _TAGS),
    Metric("prediction_seconds_left", "Seconds until all utterances are predicted", _TAGS),
)


def drive(uri: str, _submission: str, request: str) -> None:
    """Run the driver of the job: check the cluster, and predict on its workers."""
    with driver.report_errors(uri):
        wanted = PredictionRequest.load(storage.join(uri, REQUEST), request)
        if is_done(wanted.out):
            sweep(uri)
            return
        import ray

        ray.init()
        preemption.listen_as_driver()
        found = place(wanted.resources, shared=True)
        events.emit("started", run_id=wanted.run_id, **found.facts)
        workers = min(found.workers, len(wanted.shards)) or 1
        pool = start_workers(Worker, (uri, wanted, found.device, found.gpus), workers=workers, gpus=found.gpus)
        try:
            predict(uri, wanted, partial(run_tasks, pool), report=PredictionReporter(wanted), code=code())
        except NotFoundError:
            # A concurrent equal prediction was completed first, and deleted the files that this one still had to read.
            if not is_done(wanted.out):
                raise
            sweep(uri)


class PredictionReporter:
    """Reports events to the followers of the job's log and to Ray's metrics."""

    def __init__(self, request: PredictionRequest) -> None:
        tags = {"run": request.run_id, "model": request.version.model, "version": str(request.version.number)}
        self._gauges = Gauges(METRICS, **tags)

    def __call__(self, kind: str, **facts: Any) -> None:
        """Report one event."""
        events.emit(kind, **facts)
        if kind == "progress":
            for name in ("done", "per_second", "seconds_left"):
                self._gauges.set(f"prediction_{name}", facts[name])
