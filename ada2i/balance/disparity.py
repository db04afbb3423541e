"""Disparity ratio, modulation and noise: equal, to the last bit, on all ranks (paper, section 3.5).

Shape letters in this file:
    M modalities     N utterances     C classes
"""

import functools
import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

_POOL = 1 << 21  # elements; the pool of noise holds that many more than a parameter at least
_ALIGNED = 16  # elements; windows start at multiples, where vector instructions like it best


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
    names: Sequence[str],
    deviations: Tensor,
    stream: tuple[int, int],
) -> None:
    """Add Gaussian noise in place.

    The stream of a parameter depends on (seed, step, name) alone: replicas draw the same noise, and a resumed run draws
    what the interrupted one would have drawn.

    Args:
        targets: What noise is added to.
        names: Of the parameters, one for each target.
        deviations: ``(P,)`` standard deviation for each target.
        stream: Seed and step.
    """
    for target, name, deviation in zip(targets, names, deviations.unbind(), strict=True):
        numbers, sign = gaussian(target, stream_key(*stream, name))
        target.addcmul_(numbers, deviation, value=sign)


def gaussian(like: Tensor, key: int) -> tuple[Tensor, int]:
    """Return noise of mean 0 and variance 1 in the shape of a tensor, not to be written to, and the sign to give it.

    Drawing each number of each step anew would take longer than the optimizer. This is a window of a pool of Gaussian
    numbers, from a random place on (a table of noise, as in Salimans et al. 2017, section 2.1). So each element is
    Gaussian, any two are as good as uncorrelated, and so are any two draws; only neighbours stay neighbours.

    Args:
        like: Any shape.
        key: Of the place and the sign.
    """
    count = like.numel()
    pool = _pool(like.device, -(-count // _POOL))
    place = (key >> 1) % ((len(pool) - count) // _ALIGNED + 1)
    return pool[place * _ALIGNED :][:count].view_as(like), 1 - 2 * (key & 1)


@functools.cache
def _pool(device: torch.device, pools: int) -> Tensor:
    """Return Gaussian numbers with a mean of 0 and a mean square of 1, a ``_POOL`` more than ``pools`` of them."""
    generator = torch.Generator().manual_seed(stream_key(0, 0, "pool"))
    # In double precision, which rounds alike whatever the processor and the number of threads.
    drawn = torch.randn((pools + 1) * _POOL, generator=generator, dtype=torch.float64)
    return ((drawn - drawn.mean()) / drawn.std(correction=0)).float().to(device)


def deviations(tensors: Sequence[Tensor], norms: Tensor) -> Tensor:
    """Return each tensor's standard deviation, ``(P,)``, from its L2 norm; 0 where it has none.

    A tensor of one element, or of one that is not finite, has no deviation.
    """
    counts = torch.tensor([float(t.numel()) for t in tensors]).to(norms.device, non_blocking=True)
    sums = torch.stack([tensor.sum() for tensor in tensors])
    variances = (norms.square() - sums.square() / counts) / (counts - 1).clamp_min(1)
    return (variances.clamp_min(0) * (counts > 1)).sqrt().nan_to_num(0.0, 0.0, 0.0)


def stream_key(seed: int, step: int, name: str) -> int:
    """Return the 63-bit key of a random stream."""
    text = f"{seed}/{step}/{name}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1
