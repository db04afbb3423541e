"""Scores and their uncertainty: metrics, calibration, paired comparison, linear probes, the gate's rules."""

__all__ = ["calibration", "compare", "metrics", "pooling", "probe", "regression"]
