"""Scores and their uncertainty: metrics, calibration, paired comparison, linear probes."""

__all__ = ["calibration", "compare", "metrics", "pooling", "probe", "regression"]
