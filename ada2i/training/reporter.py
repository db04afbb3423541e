"""Report a training run: as events in this process, or to its job's log and Ray's metrics."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ada2i.jobs import events
from ada2i.jobs.metrics import Gauges
from ada2i.records import EpochRecord
from ada2i.training.metrics import METRICS


class Reporter:
    """Receives the progress of training; this class ignores it."""

    def first_step(self) -> None:
        """The first optimizer step of this call is done, whether resumed or not."""

    def epoch(self, seed: int, record: EpochRecord) -> None:
        """An epoch is done; its checkpoint may not be written yet."""


@dataclass
class EventReporter(Reporter):
    """Reports events; only rank 0 reports. The driver and Ray Train's controller import this module, but no torch.

    Attributes:
        run_id: The run.
        started: Unix time of the attempt's start, in seconds.
        report: Reports an event, as ``events.emit`` does.
        stepped: Whether the first step was reported.
    """

    run_id: str
    started: float
    report: Callable[..., None] = events.emit
    stepped: bool = False

    def first_step(self) -> None:
        """Report the seconds from the attempt's start to its first optimizer step, once."""
        if _rank() == 0 and not self.stepped:
            self.stepped = True
            self.report("first_step", seconds=round(time.time() - self.started, 2))

    def epoch(self, seed: int, record: EpochRecord) -> None:
        """Report an epoch."""
        if _rank() == 0:
            self.report("epoch", seed=seed, record=record.model_dump())


@dataclass
class RayReporter(EventReporter):
    """Also sets Ray's metrics."""

    gauges: Gauges = field(init=False)

    def __post_init__(self) -> None:
        self.gauges = Gauges(METRICS, run=self.run_id)

    def epoch(self, seed: int, record: EpochRecord) -> None:
        """Report an epoch."""
        super().epoch(seed, record)
        if _rank() != 0:
            return
        for metric in METRICS:
            value = getattr(record, metric.name, None)
            if isinstance(value, dict):
                for modality, number in value.items():
                    self.gauges.set(metric.name, number, seed=str(seed), modality=modality)
            elif value is not None:
                self.gauges.set(metric.name, value, seed=str(seed))


def _rank() -> int:
    from ada2i.training import distributed

    return distributed.rank()
