"""Gaussian noise as windows of one pool; the plain implementation draws every number.

Drawing every number in every step takes longer than the optimizer. A window of a pool of Gaussian numbers, from a
random offset, costs nothing (a table of noise, as in Salimans et al. 2017, section 2.1). Each element is Gaussian, any
two are nearly uncorrelated, and so are any two draws; but neighbours in the pool remain neighbours.
"""

import functools
from collections.abc import Iterator, Mapping
from itertools import accumulate

import torch
from torch import Tensor

from ada2i import fast

_POOL = 1 << 21  # elements of a window at most; the pool is twice as long
_ALIGNED = 16  # elements; windows start at multiples, which suits vector instructions
_SEED = 1097783756341092197  # of the pool: any number


Window = tuple[int, Tensor, int]  # index of the first element, numbers, and the sign (1 or -1) to multiply them by


def gaussian(like: Tensor, key: int) -> Iterator[Window]:
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
    for start, count, place, sign in places(like.numel(), key):
        yield start, pool[place : place + count], sign


def places(elements: int, key: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield for each window of a tensor its first element, its size, its place in the pool, and its sign."""
    for start in range(0, elements, _POOL):
        count = min(_POOL, elements - start)
        own = (key + start * _SEED) & (2**63 - 1)  # a tensor of several windows takes each from another place
        place = (own >> 1) % ((2 * _POOL - count) // _ALIGNED + 1)
        yield start, count, place * _ALIGNED, 1 - 2 * (own & 1)


class MovingWindows:
    """Windows whose places are read on the device, so that a captured step draws other noise each time.

    Args:
        sizes: Elements of each parameter that gets noise, by name.
        device: Of the parameters.
    """

    def __init__(self, sizes: Mapping[str, int], device: torch.device) -> None:
        self.sizes = dict(sizes)
        self.windows = {name: [w[:2] for w in places(size, 0)] for name, size in sizes.items()}
        *starts, count = accumulate(map(len, self.windows.values()), initial=0)
        self.first = dict(zip(self.windows, starts, strict=True))
        # Place and sign of each window, in the order of the names.
        self.drawn = torch.zeros(2, count, dtype=torch.int64, device=device)

    def move(self, keys: Mapping[str, int]) -> None:
        """Draw the windows of a step, given the key of each parameter."""
        drawn = [w[2:] for name, size in self.sizes.items() for w in places(size, keys[name])]
        self.drawn.copy_(torch.tensor(drawn, dtype=torch.int64).T)

    def __call__(self, target: Tensor, name: str) -> Iterator[Window]:
        """Yield noise as ``gaussian`` does for the parameter's key."""
        pool = _pool(target.device)
        for i, (start, count) in enumerate(self.windows[name], self.first[name]):
            place, sign = self.drawn[:, i]
            yield start, pool.index_select(0, place + torch.arange(count, device=pool.device)) * sign, 1


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
