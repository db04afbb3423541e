"""Training: one step, one seed, one run on a cluster; `ada2i train`."""

__all__ = ["dedup", "evaluate", "launch", "methods", "metrics", "progress", "reporter", "request"]
