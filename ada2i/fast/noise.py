"""Gaussian noise as windows of one pool; the plain twin draws every number.

Drawing every number in every step takes longer than the optimizer. A window of a pool of Gaussian numbers, from a
random offset, costs nothing (a table of noise, as in Salimans et al. 2017, section 2.1). Each element is Gaussian, any
two are nearly uncorrelated, and so are any two draws; but neighbours in the pool remain neighbours.
"""

import functools
from collections.abc import Iterator

import torch
from torch import Tensor

from ada2i import fast

_POOL = 1 << 21  # elements of a window at most; the pool is twice as long
_ALIGNED = 16  # elements; windows start at multiples, which suits vector instructions
_SEED = 1097783756341092197  # of the pool: any number


def gaussian(like: Tensor, key: int) -> Iterator[tuple[int, Tensor, int]]:
    """Yield noise of mean 0 and variance 1 for all elements of a tensor, in consecutive windows.

    Args:
        like: Any shape.
        key: Key of the draw; equal keys give equal noise.

    Yields:
        Index of the window's first element, its numbers, 1-dimensional and not to be written to, and the sign (1 or
        -1) to multiply them by.
    """
    if not fast.enabled():
        yield 0, plain_gaussian(like, key).view(-1), 1
        return
    pool = _pool(like.device)
    for start in range(0, like.numel(), _POOL):
        count = min(_POOL, like.numel() - start)
        own = (key + start * _SEED) & (2**63 - 1)  # a tensor of several windows takes each from another place
        place = (own >> 1) % ((len(pool) - count) // _ALIGNED + 1)
        yield start, pool[place * _ALIGNED :][:count], 1 - 2 * (own & 1)


def plain_gaussian(like: Tensor, key: int) -> Tensor:
    """Return the same kind of noise, drawn number by number."""
    drawn = torch.randn(like.shape, generator=torch.Generator().manual_seed(key))
    return drawn.to(like.device)


@functools.cache
def _pool(device: torch.device) -> Tensor:
    """Return ``2 * _POOL`` Gaussian numbers with a mean of 0 and a mean square of 1."""
    generator = torch.Generator().manual_seed(_SEED)
    # In double precision, which rounds the same on every processor and with any number of threads.
    drawn = torch.randn(2 * _POOL, generator=generator, dtype=torch.float64)
    return ((drawn - drawn.mean()) / drawn.std(correction=0)).float().to(device)
