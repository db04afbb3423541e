"""Jobs on a Ray cluster: addresses, submission, following, and reports."""

__all__ = [
    "client",
    "cluster",
    "code",
    "driver",
    "environment",
    "events",
    "fanout",
    "http",
    "logs",
    "metrics",
    "preemption",
    "processes",
    "resources",
    "terminal",
]
