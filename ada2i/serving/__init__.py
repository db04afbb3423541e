"""Answers for live requests: a registered version behind HTTP, on Ray Serve."""

__all__ = ["request", "run"]
