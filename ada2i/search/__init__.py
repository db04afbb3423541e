"""Searches for a config: trials by Ray Tune, suggestions by Optuna, a winner on dev; `ada2i tune`."""

__all__ = ["progress", "records", "report", "request", "space"]
