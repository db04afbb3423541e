"""Jobs on a Ray cluster: its address, how jobs are submitted and followed, and what they report."""

__all__ = [
    "client",
    "cluster",
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
