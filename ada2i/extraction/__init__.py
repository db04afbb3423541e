"""Feature extraction: corpora of raw media, encoders, and the jobs that run them."""

__all__ = ["config", "corpora", "encoders", "media", "outcome", "progress", "publish", "request", "run"]
