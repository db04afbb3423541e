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
    scores = scores.clamp_min(1e-12)  # a probability may underflow to zero, and a ratio must stay finite
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


def scale_update_(parameters: Sequence[Gradients], before: Sequence[Gradients], coefficients: Tensor) -> None:
    """Shorten each encoder's step by its coefficient, in place: exact for any optimizer, Adam included.

    Args:
        parameters: By modality, the encoder's parameters after the optimizer's step.
        before: The same before it.
        coefficients: ``(M,)`` k_m.
    """
    for tensors, old, coefficient in zip(parameters, before, coefficients.unbind(), strict=True):
        moved = torch._foreach_sub(list(tensors.values()), list(old.values()))
        torch._foreach_mul_(moved, coefficient)
        torch._foreach_copy_(list(tensors.values()), torch._foreach_add(moved, list(old.values())))


def add_update_noise_(
    parameters: Sequence[Gradients], gradients: Sequence[Gradients], *, rate: float, seed: int, step: int
) -> None:
    """Add to each encoder parameter the noise that SGD's gradient noise makes of a step: rate times its deviation."""
    for tensors, slopes in zip(parameters, gradients, strict=True):
        noise = {name: torch.zeros_like(tensor) for name, tensor in slopes.items()}
        for name, gradient in slopes.items():
            if gradient.numel() < 2:
                continue
            generator = torch.Generator(gradient.device).manual_seed(stream_key(seed, step, name))
            noise[name].normal_(generator=generator).mul_(gradient.std() + 1e-8)
        torch._foreach_add_(list(tensors.values()), list(noise.values()), alpha=rate)


def stream_key(seed: int, step: int, name: str) -> int:
    """Return the 63-bit key of a random stream."""
    text = f"{seed}/{step}/{name}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1
