"""Grids of runs with the published numbers; `ada2i reproduce`."""

__all__ = ["outside", "progress", "request", "rows", "table"]
