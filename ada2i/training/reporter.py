"""Report a training run to its job's log and to Ray's metrics."""

import time
from dataclasses import dataclass, field

from ada2i.jobs import events
from ada2i.jobs.metrics import Gauges
from ada2i.records import EpochRecord
from ada2i.training import distributed
from ada2i.training.metrics import METRICS


@dataclass
class RayReporter:
    """Reports to the followers of the job's log and to Ray's metrics; only rank 0 reports."""

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
        for metric in METRICS:
            value = getattr(record, metric.name, None)
            if isinstance(value, dict):
                for modality, number in value.items():
                    self.gauges.set(metric.name, number, seed=str(seed), modality=modality)
            elif value is not None:
                self.gauges.set(metric.name, value, seed=str(seed))
