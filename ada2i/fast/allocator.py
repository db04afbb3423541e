"""Memory that this process keeps between steps; the plain implementation is glibc's default behaviour."""

import ctypes
import sys

from ada2i import fast

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_LARGEST = 32 << 20  # bytes; the highest threshold that glibc accepts


def keep_freed_memory() -> bool:
    """Make the allocator reuse freed blocks of up to 32 MiB instead of returning them to the kernel.

    A step frees its gradients and activations, and the next step allocates as much. By default glibc returns such
    blocks to the kernel, which then clears every page again: an eighth of a step at MELD's settings. With another C
    library, or on another system, nothing happens.

    Returns:
        Whether the allocator accepted the settings.
    """
    if not fast.enabled() or not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))
