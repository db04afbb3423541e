"""Exports registry metrics to Prometheus through a small actor on the cluster that outlives jobs.

Versions are registered and moved by short-lived processes outside Ray. So an actor, which Prometheus can scrape,
reads the registry from storage at regular intervals.
"""

import logging
import threading
import time

import ray

from ada2i import storage
from ada2i.errors import Ada2iError
from ada2i.jobs.metrics import Gauges
from ada2i.registry.metrics import METRICS, measure

log = logging.getLogger(__name__)

NAMESPACE = "ada2i"
_SECONDS = 30.0  # between two reads


class RegistryExporter:
    """Reads a registry and sets its gauges, until the cluster ends."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.gauges = Gauges(METRICS)
        self.known: dict[str, float | None] = {}
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            self.update()
            time.sleep(_SECONDS)

    def update(self) -> None:
        """Set the gauges; if the registry cannot be read, all keep their values."""
        try:
            self.gauges.set_all(measure(self.root, self.known))
        except Ada2iError as problem:
            log.warning("The registry cannot be read: %s", problem.message)


def ensure(root: str) -> None:
    """Start the exporter of a root's registry unless it runs on the cluster; do not wait for it."""
    name = f"registry-{storage.digest(root.encode())[:12]}"
    options = {"name": name, "namespace": NAMESPACE, "lifetime": "detached", "get_if_exists": True}
    ray.remote(RegistryExporter).options(**options, num_cpus=0, max_restarts=-1).remote(root)
