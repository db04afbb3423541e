"""Turns feature shards into batches: decoding, order, streaming and statistics of a split."""

__all__ = ["order", "resident", "split_data", "statistics"]
