"""Gaussian noise as windows of one pool; the plain twin draws every number.

Drawing every number in every step takes longer than the optimizer. A window of a pool of Gaussian numbers, from a
random offset, costs nothing (a table of noise, as in Salimans et al. 2017, section 2.1). Each element is Gaussian, any
two are nearly uncorrelated, and so are any two draws; but neighbours in the pool remain neighbours.
"""

import functools

import torch
from torch import Tensor

from ada2i import fast

_POOL = 1 << 21  # minimum elements by which the pool is longer than a parameter
_ALIGNED = 16  # elements; windows start at multiples, which suits vector instructions
_SEED = 1097783756341092197  # of the pool: any number


def gaussian(like: Tensor, key: int) -> tuple[Tensor, int]:
    """Return noise of mean 0 and variance 1 in the shape of a tensor, and the sign (1 or -1) to multiply it by.

    Args:
        like: Any shape.
        key: Key of the draw; equal keys give equal noise.

    Returns:
        A tensor that must not be written to, and the sign.
    """
    if not fast.enabled():
        return plain_gaussian(like, key), 1
    count = like.numel()
    pool = _pool(like.device, -(-count // _POOL))
    place = (key >> 1) % ((len(pool) - count) // _ALIGNED + 1)
    return pool[place * _ALIGNED :][:count].view_as(like), 1 - 2 * (key & 1)


def plain_gaussian(like: Tensor, key: int) -> Tensor:
    """Return the same kind of noise, drawn number by number."""
    drawn = torch.randn(like.shape, generator=torch.Generator().manual_seed(key))
    return drawn.to(like.device)


@functools.cache
def _pool(device: torch.device, pools: int) -> Tensor:
    """Return ``(pools + 1) * _POOL`` Gaussian numbers with a mean of 0 and a mean square of 1."""
    generator = torch.Generator().manual_seed(_SEED)
    # In double precision, which rounds the same on every processor and with any number of threads.
    drawn = torch.randn((pools + 1) * _POOL, generator=generator, dtype=torch.float64)
    return ((drawn - drawn.mean()) / drawn.std(correction=0)).float().to(device)
