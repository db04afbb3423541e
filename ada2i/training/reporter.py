"""Reports a training run to the followers of its job's log and to Ray's metrics."""

import time
from dataclasses import dataclass, field

from ada2i.jobs import events
from ada2i.jobs.metrics import Gauges
from ada2i.records import EpochRecord
from ada2i.training import distributed
from ada2i.training.metrics import BY_MODALITY, METRICS, PLAIN


@dataclass
class RayReporter:
    """Tells the followers of the job's log, and Ray's metrics, how training goes; rank 0 speaks for all."""

    run_id: str
    started: float
    stepped: bool = False
    gauges: Gauges = field(init=False)

    def __post_init__(self) -> None:
        self.gauges = Gauges(METRICS, run=self.run_id)

    def first_step(self) -> None:
        """Report the time from the driver's start to this attempt's first optimizer step, once."""
        if distributed.rank() == 0 and not self.stepped:
            self.stepped = True
            events.emit("first_step", seconds=round(time.time() - self.started, 2))

    def epoch(self, seed: int, record: EpochRecord) -> None:
        """Report an epoch."""
        if distributed.rank() != 0:
            return
        events.emit("epoch", seed=seed, record=record.model_dump())
        for metric in PLAIN:
            self.gauges.set(metric.name, getattr(record, metric.name), seed=str(seed))
        for metric in BY_MODALITY:
            for modality, value in getattr(record, metric.name).items():
                self.gauges.set(metric.name, value, seed=str(seed), modality=modality)
