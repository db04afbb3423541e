"""Audits of features: anomalies, leaks and what training refuses; `ada2i audit`."""

__all__ = ["audit", "gate", "measures", "records"]
