"""Prometheus metrics through Ray: each node's agent exports the metrics set here, as ``ray_ada2i_<name>``.

Each package declares its own ``METRICS``; the dashboards in ``infra/dashboards`` show all of them.

Ray drops a gauge that was not set during two report intervals (20 s by default, 4 s in the local stack), so a thread
sets the last values again.
"""

import threading
import time
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray.util.metrics import Gauge


@dataclass(frozen=True)
class Metric:
    """A gauge.

    Attributes:
        name: Name in the code; Prometheus uses ``exported``.
        help: Description with unit.
        tags: Names of its labels.
    """

    name: str
    help: str
    tags: tuple[str, ...]

    @property
    def exported(self) -> str:
        """Its name in Prometheus."""
        return f"ray_ada2i_{self.name}"


_REPEAT = 1.0  # seconds between two repetitions; below every report interval of Ray
Tags = tuple[tuple[str, str], ...]


class Gauges:
    """Some metrics of this process, which must be one of Ray's; each is created when it is first set.

    The values are exported until the process ends or this object is deleted.
    """

    def __init__(self, metrics: Iterable[Metric], **tags: str) -> None:
        self._metrics = {metric.name: metric for metric in metrics}
        self._tags = tags
        self._made: dict[str, Gauge] = {}
        self._values: dict[tuple[str, Tags], float] = {}

    def set(self, name: str, value: float, **tags: str) -> None:
        """Set a metric; tags that were passed to the constructor are added."""
        metric = self._metrics[name]
        if name not in self._made:
            from ray.util.metrics import Gauge

            if not self._made:
                threading.Thread(target=_repeat, args=(weakref.ref(self),), daemon=True).start()
            self._made[name] = Gauge(f"ada2i_{name}", description=metric.help, tag_keys=metric.tags)
        key = (name, tuple((self._tags | tags).items()))
        self._values[key] = float(value)
        self._made[name].set(float(value), tags=dict(key[1]))

    def set_all(self, samples: Iterable[tuple[str, float, dict[str, str]]]) -> None:
        """Set metrics from names, values and tags; values that are not among them are exported no more."""
        found = list(samples)
        self._values = {}
        for name, value, tags in found:
            self.set(name, value, **tags)

    def repeat(self) -> None:
        """Set the last values again."""
        for (name, tags), value in list(self._values.items()):  # a copy: another thread sets values
            self._made[name].set(value, tags=dict(tags))


def _repeat(found: "weakref.ref[Gauges]") -> None:
    while gauges := found():
        gauges.repeat()
        del gauges
        time.sleep(_REPEAT)
