"""Faster CPU implementations of torch operations, each next to a plain implementation.

``resources.fast_cpu`` switches all of them at once. The switch belongs to the process, like ``torch.backends``.
"""

_enabled = True


def enable(on: bool) -> None:
    """Switch the fast implementations of this process on or off."""
    global _enabled  # noqa: PLW0603 - one switch for the whole process
    _enabled = on


def enabled() -> bool:
    """Return whether the fast implementations are on; by default they are."""
    return _enabled


__all__ = ["adam", "allocator", "attention", "buckets", "dropout", "noise", "operators", "threads"]
