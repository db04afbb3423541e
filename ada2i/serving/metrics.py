"""Metrics of the endpoint, in the text format of Prometheus; they hold counts and times, never content."""

from collections.abc import Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BATCH: Final = (1, 2, 4, 8, 16, 32)


class Metrics:
    """The metrics of one endpoint."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "ada2i_serving_requests", "Requests by path and status", ["path", "status"], registry=registry
        )
        self._seconds = Histogram(
            "ada2i_serving_request_seconds", "Time of a request", ["path"], buckets=_SECONDS, registry=registry
        )
        self._batch = Histogram(
            "ada2i_serving_batch_requests",
            "Requests that were answered together with a request",
            buckets=_BATCH,
            registry=registry,
        )
        self._sessions = Gauge("ada2i_serving_sessions", "Open live sessions", registry=registry)
        self._windows = Counter(
            "ada2i_serving_drift_windows",
            "Drift windows: stored, or attempts that failed",
            ["result"],
            registry=registry,
        )
        self._version = Gauge("ada2i_serving_version", "1 for the current version", ["version"], registry=registry)

    def observe(self, path: str, status: int, seconds: float) -> None:
        """Count a request, by its path as the API writes it; status 499: the client left."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def answered(self, batch: int) -> None:
        """Count an answer of the model."""
        self._batch.observe(batch)

    def windows(self, results: Mapping[str, int]) -> None:
        """Add what became of drift windows, by result."""
        for result, number in results.items():
            self._windows.labels(result).inc(number)

    def text(self, *, sessions: int, version: str) -> bytes:
        """Return all metrics."""
        self._sessions.set(sessions)
        self._version.clear()
        self._version.labels(version).set(1)
        return generate_latest(self._registry)
