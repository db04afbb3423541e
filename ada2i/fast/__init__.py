"""Faster ways on a CPU to compute what torch computes, each next to its plain twin.

``resources.fast_cpu`` switches all of them at once. The switch belongs to the process, like ``torch.backends``.
"""

_enabled = True


def enable(on: bool) -> None:
    """Choose between the fast ways and their plain twins, for this process."""
    global _enabled  # noqa: PLW0603 - one switch for the process, read where the work is done
    _enabled = on


def enabled() -> bool:
    """Return whether the fast ways are on; they are until ``enable`` switches them off."""
    return _enabled


__all__ = ["adam", "allocator", "attention", "buckets", "dropout", "noise"]
