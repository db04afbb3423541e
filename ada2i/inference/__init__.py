"""Models from registered versions and checkpoints, and their predictions."""
