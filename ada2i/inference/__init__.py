"""Models from registered versions and checkpoints, and their predictions."""

__all__ = ["floor", "missing", "models", "predict", "reading", "sums", "versions"]
