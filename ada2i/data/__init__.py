"""Feature sets: Parquet shards, their schema and manifest, splits and provenance."""

__all__ = ["entries", "leakage", "manifest", "parquet", "provenance", "schema", "shards", "splits", "spool"]
