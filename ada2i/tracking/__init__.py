"""Exports of registered versions to other trackers: MLflow and Weights & Biases, both without a server."""

__all__ = ["export"]
