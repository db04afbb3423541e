"""From gradients to new weights: clipping, the balancer's factors, noise and Adam.

The optimizer has a parameter group per encoder, in the model's order, and one for the rest.

Shape letters in this file:
    M modalities     P parameters of a group
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ada2i.balance import noise
from ada2i.balance.base import StepScales
from ada2i.fast.adam import scaled_step
from ada2i.modalities import Modality
from ada2i.model.ada2i import Ada2I
from ada2i.training.clipping import Norms, clip_factor

_LEAST_DEVIATION = 1e-8  # smallest deviation of noise, as in the released code


def make_optimizer(model: Ada2I, *, learning_rate: float, weight_decay: float) -> torch.optim.Adam:
    """Return Adam with one parameter group per encoder, in the model's order, and one for the rest."""
    encoders = [list(model.encoders[m].parameters()) for m in model.modalities]
    of_encoders = {id(p) for group in encoders for p in group}
    rest = [p for p in model.parameters() if id(p) not in of_encoders]
    groups: list[dict[str, Any]] = [{"params": group} for group in (*encoders, rest)]
    return torch.optim.Adam(groups, lr=learning_rate, weight_decay=weight_decay, fused=True)


def update(
    model: Ada2I,
    optimizer: torch.optim.Adam,
    *,
    norms: Norms,
    broken: Tensor,
    clip_norm: float,
    scales: StepScales,
    stream: tuple[int, int],
) -> None:
    """Clip, scale, add noise and step.

    Args:
        model: The model to train.
        optimizer: The optimizer from ``make_optimizer``.
        norms: Norms of its gradients.
        broken: Scalar bool, true if a loss or gradient is not finite; then this step and all later ones are skipped.
        clip_norm: L2 norm to which gradients are clipped.
        scales: The balancer's factors.
        stream: Seed and step: the key of the noise.
    """
    clip = clip_factor(norms, clip_norm)
    gradient_factors = clip.repeat(len(optimizer.param_groups))
    rate_factors = None
    if scales.gradient is not None:
        gradient_factors[:-1] *= scales.gradient
        gradient_factors = gradient_factors.clamp_min(1e-30)  # a factor may be 0, and noise has a minimum
    if scales.update is not None:
        rate_factors = torch.ones_like(gradient_factors)
        rate_factors[:-1] *= scales.update
    rates = [group["lr"] for group in optimizer.param_groups]
    if scales.gradient_noise is not None:
        floors = _LEAST_DEVIATION / gradient_factors  # the factors are applied after the noise
        own = [x + floor for x, floor in zip(_deviations(model, norms), floors, strict=False)]
        _add_noise(model, own, scales.gradient_noise, stream, to_gradients=True)
    # Computed before the step, which overwrites the gradients with the clipped ones.
    deviations = _deviations(model, norms) if scales.update_noise is not None else []
    moved = scaled_step(optimizer, gradient_factors, rate_factors, broken.to(clip.dtype))
    if scales.update_noise is not None:
        # The effect of SGD's gradient noise on a step: rate times deviation; 0 if the optimizer step was skipped.
        clipped = [clip.nan_to_num(0.0) * x + _LEAST_DEVIATION for x in deviations]
        own = [rate * moved * x for rate, x in zip(rates, clipped, strict=False)]
        _add_noise(model, own, scales.update_noise, stream, to_gradients=False)


def encoder_gradients(model: Ada2I, modality: Modality) -> dict[str, Tensor]:
    """Return an encoder's gradients by parameter name, in the order of its group."""
    named = model.encoders[modality].named_parameters()
    return {f"encoders.{modality}.{name}": p.grad for name, p in named if p.grad is not None}


def _deviations(model: Ada2I, norms: Norms) -> list[Tensor]:
    """Return for each encoder the standard deviations of its gradients, ``(P,)``."""
    gradients = [list(encoder_gradients(model, m).values()) for m in model.modalities]
    return [noise.deviations(own, norm) for own, norm in zip(gradients, norms.by_group, strict=False)]


def _add_noise(
    model: Ada2I, deviations: Sequence[Tensor], factors: Tensor, stream: tuple[int, int], *, to_gradients: bool
) -> None:
    """Add noise to the encoders' gradients, or to their weights; ``factors`` of its deviations are ``(M,)``."""
    for m, own, factor in zip(model.modalities, deviations, factors, strict=True):
        gradients = encoder_gradients(model, m)
        weights = [p.data for p in model.encoders[m].parameters() if p.grad is not None]
        targets = list(gradients.values()) if to_gradients else weights
        noise.add_noise_(targets, list(gradients), factor * own, stream)
