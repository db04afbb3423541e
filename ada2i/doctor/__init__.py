"""Checks everything that a run needs, and prints what to do about failures: `ada2i doctor`.

Each file checks one thing from outside, as a run would use it, with locations and credentials from the same places.
"""

__all__ = ["check", "examine"]
