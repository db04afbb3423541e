"""Models from registered versions and checkpoints, and their predictions."""

__all__ = ["models", "predict"]
