"""Gaussian noise with a gradient's own deviation: equal, to the last bit, on all ranks and in a resumed run.

Shape letters in this file:
    P tensors
"""

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ada2i.fast.noise import Window, gaussian

# Yields noise for all elements of a parameter with a name, in consecutive windows; see ``fast.noise.gaussian``.
Draws = Callable[[Tensor, str], Iterator[Window]]


class StepDraws:
    """The draws of a step.

    The stream of a parameter depends on (seed, step, name) alone: replicas draw the same noise, and a resumed run draws
    what the interrupted one would have drawn.

    Args:
        seed: Of the run.
        step: Over the whole run.
    """

    def __init__(self, seed: int, step: int) -> None:
        self.seed, self.step = seed, step

    def __call__(self, target: Tensor, name: str) -> Iterator[Window]:
        """See ``Draws``."""
        return gaussian(target, stream_key(self.seed, self.step, name))


def add_noise_(targets: Sequence[Tensor], names: Sequence[str], deviations: Tensor, draws: Draws) -> None:
    """Add Gaussian noise in place.

    Args:
        targets: The tensors to which noise is added.
        names: Names of the parameters, one for each target.
        deviations: ``(P,)`` standard deviation for each target.
        draws: Draws the noise.
    """
    for target, name, deviation in zip(targets, names, deviations.unbind(), strict=True):
        elements = target.view(-1)
        for start, numbers, sign in draws(target, name):
            elements[start : start + len(numbers)].addcmul_(numbers, deviation, value=sign)


def deviations(tensors: Sequence[Tensor], norms: Tensor) -> Tensor:
    """Return each tensor's standard deviation, ``(P,)``, from its L2 norm ``(P,)``.

    It is 0 for a tensor of one element, and for one with an element that is not finite.
    """
    counts = _sizes(tuple(t.numel() for t in tensors), norms.device)
    sums = torch.stack([tensor.sum() for tensor in tensors])
    variances = (norms.square() - sums.square() / counts) / (counts - 1).clamp_min(1)
    return (variances.clamp_min(0) * (counts > 1)).sqrt().nan_to_num(0.0, 0.0, 0.0)


@functools.cache
def _sizes(sizes: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(sizes, dtype=torch.float32, device=device)


def stream_key(seed: int, step: int, name: str) -> int:
    """Return the 63-bit key of a random stream."""
    text = f"{seed}/{step}/{name}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1
