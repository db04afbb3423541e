"""Registered models: immutable versions on any storage."""

__all__ = ["aliases", "diff", "exporter", "gc", "pull", "references", "verdicts", "verify", "versions"]
