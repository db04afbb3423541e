"""Gaussian noise with a gradient's own deviation: equal, to the last bit, on all ranks and in a resumed run.

Shape letters in this file:
    P tensors
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from ada2i.fast.noise import gaussian


def add_noise_(
    targets: Sequence[Tensor],
    names: Sequence[str],
    deviations: Tensor,
    stream: tuple[int, int],
) -> None:
    """Add Gaussian noise in place.

    The stream of a parameter depends on (seed, step, name) alone: replicas draw the same noise, and a resumed run draws
    what the interrupted one would have drawn.

    Args:
        targets: The tensors to which noise is added.
        names: Names of the parameters, one for each target.
        deviations: ``(P,)`` standard deviation for each target.
        stream: Seed and step.
    """
    for target, name, deviation in zip(targets, names, deviations.unbind(), strict=True):
        elements = target.view(-1)
        for start, numbers, sign in gaussian(target, stream_key(*stream, name)):
            elements[start : start + len(numbers)].addcmul_(numbers, deviation, value=sign)


def deviations(tensors: Sequence[Tensor], norms: Tensor) -> Tensor:
    """Return each tensor's standard deviation, ``(P,)``, from its L2 norm ``(P,)``.

    It is 0 for a tensor of one element, and for one with an element that is not finite.
    """
    counts = torch.tensor([float(t.numel()) for t in tensors]).to(norms.device, non_blocking=True)
    sums = torch.stack([tensor.sum() for tensor in tensors])
    variances = (norms.square() - sums.square() / counts) / (counts - 1).clamp_min(1)
    return (variances.clamp_min(0) * (counts > 1)).sqrt().nan_to_num(0.0, 0.0, 0.0)


def stream_key(seed: int, step: int, name: str) -> int:
    """Return the 63-bit key of a random stream."""
    text = f"{seed}/{step}/{name}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1
