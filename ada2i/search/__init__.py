"""Searches for a config: trials run by Ray Tune, suggestions by Optuna, the winner chosen on dev; `ada2i tune`."""

__all__ = ["progress", "records", "report", "request", "space"]
