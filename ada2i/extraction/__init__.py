"""Feature extraction: corpora of raw media, encoders, and what runs them."""

__all__ = ["config", "corpora", "encoders", "progress", "publish", "request"]
