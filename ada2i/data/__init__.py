"""Feature sets: Parquet shards, their schema and manifest, splits and provenance."""

__all__ = ["leakage", "manifest", "provenance", "schema", "shards", "splits"]
