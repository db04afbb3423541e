"""How this process keeps memory between steps."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_LARGEST = 32 << 20  # bytes; glibc takes no higher threshold for blocks of its own


def keep_freed_memory() -> bool:
    """Have freed blocks of up to 32 MiB used again rather than given back.

    A step frees its gradients and activations, and the next allocates as much. By default glibc gives such blocks back
    to the kernel, which then clears every page anew: an eighth of a step at MELD's settings. With another C library,
    or on another system, nothing happens.

    Returns:
        Whether the allocator will do so.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))
