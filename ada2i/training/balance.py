"""Disparity ratio, modulation and noise: equal, to the last bit, on all ranks (paper, section 3.5).

Shape letters in this file:
    M modalities     N utterances     C classes
"""

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Gradients = Mapping[str, Tensor]  # by parameter name


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
    scores = scores.clamp_min(torch.finfo(scores.dtype).tiny)  # a probability may underflow to zero
    return scores / scores.min()


def modulation(ratio: Tensor, alpha: float) -> Tensor:
    """Return k_m, ``(M,)``: 1 - tanh(alpha * rho_m) where rho_m > 1, else 1."""
    return torch.where(ratio > 1, 1 - torch.tanh(alpha * ratio), torch.ones_like(ratio))


def scale_(gradients: Sequence[Gradients], coefficients: Tensor) -> None:
    """Multiply each modality's encoder gradients by its coefficient, in place; the device is asked for no value."""
    for tensors, coefficient in zip(gradients, coefficients.unbind(), strict=True):
        torch._foreach_mul_(list(tensors.values()), coefficient)


def add_noise_(gradients: Sequence[Gradients], *, seed: int, step: int) -> None:
    """Add Gaussian noise with each gradient's own standard deviation, in place (released code; OGM-GE).

    The stream of a parameter depends on (seed, step, name) alone, and its deviation on a gradient that is already
    averaged: replicas draw the same noise, and a resumed run draws what the interrupted one would have drawn.
    """
    for tensors in gradients:
        for name, gradient in tensors.items():
            if gradient.numel() < 2:
                continue  # one number has no deviation
            generator = torch.Generator(gradient.device).manual_seed(stream_key(seed, step, name))
            noise = torch.empty_like(gradient).normal_(generator=generator)
            gradient.addcmul_(noise, gradient.std() + 1e-8)


def stream_key(seed: int, step: int, name: str) -> int:
    """Return the 63-bit key of a random stream."""
    text = f"{seed}/{step}/{name}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1
