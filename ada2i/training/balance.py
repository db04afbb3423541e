"""Disparity ratio, modulation and noise: equal, to the last bit, on all ranks (paper, section 3.5).

Shape letters in this file:
    M modalities     N utterances     C classes
"""

import functools
import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Gradients = Mapping[str, Tensor]  # by parameter name

_POOL = 1 << 21  # elements; the pool holds twice as many as the largest parameter, in these steps


def true_class_scores(unimodal_logits: Tensor, labels: Tensor) -> Tensor:
    """Return s_m, ``(M,)``: the probability of the true class, summed over utterances.

    Args:
        unimodal_logits: ``(M, N, C)``.
        labels: ``(N,)`` int64.
    """
    probabilities = torch.softmax(unimodal_logits, dim=-1)
    index = labels.expand(len(unimodal_logits), -1)[:, :, None]
    return probabilities.gather(2, index).sum(dim=(1, 2))


def disparity_ratio(scores: Tensor) -> Tensor:
    """Return rho_m, ``(M,)``: each modality's summed score over that of the weakest."""
    scores = scores.clamp_min(1e-12)  # a probability may underflow to zero, and a ratio must stay finite
    return scores / scores.min()


def modulation(ratio: Tensor, alpha: float) -> Tensor:
    """Return k_m, ``(M,)``: 1 - tanh(alpha * rho_m) where rho_m > 1, else 1."""
    return torch.where(ratio > 1, 1 - torch.tanh(alpha * ratio), torch.ones_like(ratio))


def add_noise_(
    targets: Sequence[Tensor],
    gradients: Gradients,
    stream: tuple[int, int],
    *,
    scale: Tensor | float,
    floor: Tensor | float,
) -> None:
    """Add Gaussian noise with each gradient's own standard deviation, in place (released code; OGM-GE).

    The stream of a parameter depends on (seed, step, name) alone, and its deviation on a gradient that is already
    averaged: replicas draw the same noise, and a resumed run draws what the interrupted one would have drawn.

    Args:
        targets: What noise is added to, one for each gradient.
        gradients: By parameter name.
        stream: Seed and step.
        scale: Factor of the deviations.
        floor: Added to each deviation after that.
    """
    # A gradient that is not finite has no deviation, and must not reach what the scale, then 0, is there to protect.
    deviations = _deviations(list(gradients.values())).nan_to_num(0.0, 0.0) * scale + floor
    for target, (name, gradient), deviation in zip(targets, gradients.items(), deviations.unbind(), strict=True):
        if gradient.numel() > 1:  # one number has no deviation
            target.addcmul_(gaussian(gradient, stream_key(*stream, name)), deviation)


def gaussian(like: Tensor, key: int) -> Tensor:
    """Return noise of mean 0 and variance 1 in the shape of a float32 tensor, ten times as fast as a draw for each.

    Each element is a magnitude out of a pool of Gaussian ones, from a random place on, with a fair sign of its own. So
    each is Gaussian, any two are uncorrelated, and a sum over many is Gaussian whatever it sums; only which magnitudes
    are neighbours is not drawn anew.

    Args:
        like: Any shape.
        key: Of the signs and the place.
    """
    count = like.numel()
    pool = _pool(like.device, -(-count // _POOL))
    words = torch.empty(count // 64 + 1, dtype=torch.int64, device=like.device)
    words.random_(-(2**63), None, generator=torch.Generator(like.device).manual_seed(key))
    signs = torch.bitwise_left_shift(
        words.view(torch.int32)[:, None], torch.arange(32, dtype=torch.int32, device=like.device)
    )
    signs = signs.bitwise_and_(-(2**31)).view(-1)[:count]
    first = key % (len(pool) - count + 1)
    return signs.bitwise_xor_(pool[first : first + count]).view(torch.float32).view_as(like)


@functools.cache
def _pool(device: torch.device, pools: int) -> Tensor:
    """Return the bits of Gaussian magnitudes with a mean square of 1: int32, twice a multiple of ``_POOL``."""
    generator = torch.Generator().manual_seed(stream_key(0, 0, "pool"))
    drawn = torch.randn(2 * _POOL * pools, generator=generator)
    return (drawn / drawn.square().mean().sqrt()).view(torch.int32).to(device)


def _deviations(tensors: Sequence[Tensor]) -> Tensor:
    """Return each tensor's standard deviation from its norm and sum: two quick passes, where `std` takes slow ones."""
    counts = torch.tensor([float(t.numel()) for t in tensors])
    norms = torch.stack(torch._foreach_norm(list(tensors)))
    sums = torch.stack([tensor.sum() for tensor in tensors])
    counts = counts.to(norms.device, non_blocking=True)
    variances = (norms.square() - sums.square() / counts) / (counts - 1).clamp_min(1)
    return variances.clamp_min(0).sqrt()


def stream_key(seed: int, step: int, name: str) -> int:
    """Return the 63-bit key of a random stream."""
    text = f"{seed}/{step}/{name}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1
