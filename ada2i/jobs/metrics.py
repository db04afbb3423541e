"""Prometheus metrics through Ray: each node's agent exports the metrics set here, as ``ray_ada2i_<name>``.

Each package declares its own ``METRICS``; the dashboards in ``infra/dashboards`` show all of them.
"""

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


class Gauges:
    """Some metrics of this process, which must be one of Ray's; each is created when it is first set."""

    def __init__(self, metrics: Iterable[Metric], **tags: str) -> None:
        self._metrics = {metric.name: metric for metric in metrics}
        self._tags = tags
        self._made: dict[str, Gauge] = {}

    def set(self, name: str, value: float, **tags: str) -> None:
        """Set a metric; tags that were passed to the constructor are added."""
        metric = self._metrics[name]
        if name not in self._made:
            from ray.util.metrics import Gauge

            self._made[name] = Gauge(f"ada2i_{name}", description=metric.help, tag_keys=metric.tags)
        self._made[name].set(float(value), tags=self._tags | tags)
