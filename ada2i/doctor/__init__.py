"""Checks everything that a run needs, and says what to do about failures: `ada2i doctor`.

Each file looks at one thing from outside, as a run would, and reads places and credentials from where a run does.
"""

__all__ = ["check", "examine"]
