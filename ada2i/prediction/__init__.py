"""Predictions of a registered version for a whole source: checked, streamed by shards, written as Parquet."""

__all__ = ["output", "progress", "records", "request", "run", "source", "worker"]
