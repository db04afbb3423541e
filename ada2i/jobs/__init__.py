"""Jobs on a Ray cluster: addresses, submission, following, and reports."""

__all__ = [
    "client",
    "cluster",
    "code",
    "driver",
    "events",
    "fanout",
    "http",
    "logs",
    "metrics",
    "preemption",
    "processes",
    "ray_compat",
    "resources",
    "terminal",
]
