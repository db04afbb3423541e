"""An extraction as a Ray job. The only file of this package that knows Ray.

The driver plans, hands chunks to workers and assembles the set; workers write vectors to storage, where the driver
reads them. After any kill, the next attempt reuses all chunks that were written and produces the same bytes.
"""

from functools import partial
from typing import Any

from ada2i import storage
from ada2i.extraction.request import ExtractionRequest, is_done
from ada2i.extraction.run import extract
from ada2i.extraction.work import Worker
from ada2i.jobs import driver, events, preemption
from ada2i.jobs.fanout import run_tasks, start_workers
from ada2i.jobs.metrics import Gauges, Metric
from ada2i.jobs.resources import place
from ada2i.modalities import Modality

_TAGS = ("run", "modality", "encoder")

METRICS = (
    Metric("extraction_to_encode", "Vectors that this attempt has to compute", _TAGS),
    Metric("extraction_reused", "Vectors that were computed before", _TAGS),
    Metric("extraction_done", "Items encoded by this attempt, including failed ones", _TAGS),
    Metric("extraction_per_second", "Items encoded per second, all workers", _TAGS),
    Metric("extraction_seconds_left", "Seconds until the modality is encoded", _TAGS),
    Metric("extraction_lost", "Media of this attempt that gave no vector, by problem", (*_TAGS, "problem")),
)


def drive(uri: str, _submission: str, request: str) -> None:
    """Run the driver of the job: check the cluster, and extract on its workers."""
    with driver.report_errors(uri):
        if is_done(uri):
            return
        import ray

        wanted = ExtractionRequest.load(storage.join(uri, "request.json"), request)
        ray.init()
        preemption.listen_as_driver()
        config = wanted.config
        found = place(config.resources, shared=True, group="")
        events.emit("started", run_id=wanted.run_id, **found.facts)
        workers = start_workers(Worker, (wanted.root, config, found.device), workers=config.workers, gpus=found.gpus)
        extract(uri, wanted, partial(run_tasks, workers), report=ExtractionReporter(wanted))


class ExtractionReporter:
    """Reports events to the followers of the job's log and to Ray's metrics."""

    def __init__(self, request: ExtractionRequest) -> None:
        self._encoders = {modality: choice.spec for modality, choice in request.config.encoders.items()}
        self._gauges = Gauges(METRICS, run=request.run_id)

    def __call__(self, kind: str, **facts: Any) -> None:
        """Report one event."""
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
