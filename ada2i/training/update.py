"""From gradients to new weights: norms, clipping, modulation, noise and Adam, with as few passes as they allow.

The optimizer has a parameter group per encoder, in the model's order, and one for the rest. Adam's fused kernel divides
gradients by a factor as it reads them, so clipping costs no pass of its own, and takes a learning rate per group, so
neither does modulation of the update.

Shape letters in this file:
    M modalities
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ada2i.balance import disparity as balance
from ada2i.config import BalanceConfig
from ada2i.modalities import Modality
from ada2i.model.ada2i import Ada2I


def make_optimizer(model: Ada2I, *, learning_rate: float, weight_decay: float) -> torch.optim.Adam:
    """Return Adam over a group of parameters per encoder, in the model's order, and one of the rest."""
    encoders = [list(model.encoders[m].parameters()) for m in model.modalities]
    of_encoders = {id(p) for group in encoders for p in group}
    rest = [p for p in model.parameters() if id(p) not in of_encoders]
    groups: list[dict[str, Any]] = [{"params": group} for group in (*encoders, rest)]
    return torch.optim.Adam(groups, lr=learning_rate, weight_decay=weight_decay, fused=True)


class Norms(NamedTuple):
    """L2 norms of gradients.

    Attributes:
        by_group: For each of the optimizer's groups those of its gradients, ``(P,)``.
        by_encoder: ``(M,)``.
        total: Scalar.
    """

    by_group: Sequence[Tensor]
    by_encoder: Tensor
    total: Tensor


def gradient_norms(optimizer: torch.optim.Optimizer) -> Norms:
    """Return the norms of all gradients."""
    groups = [_gradients(group) for group in optimizer.param_groups]
    norms = torch.stack(torch._foreach_norm([gradient for group in groups for gradient in group]))
    by_group = torch.split(norms, [len(group) for group in groups])
    together = torch.stack([norm.norm() for norm in by_group])
    return Norms(by_group, together[:-1], together.norm())


def update(
    model: Ada2I,
    optimizer: torch.optim.Adam,
    *,
    norms: Norms,
    broken: Tensor,
    clip_norm: float,
    coefficient: Tensor,
    modulate: BalanceConfig | None,
    stream: tuple[int, int],
) -> None:
    """Clip, modulate, add noise and step, unless a gradient is not finite.

    Args:
        model: What is trained.
        optimizer: As ``make_optimizer`` makes it.
        norms: Of its gradients.
        broken: Scalar bool, true where no step may be taken; then none is, now and later.
        clip_norm: L2 norm to clip to.
        coefficient: ``(M,)`` k_m.
        modulate: Modulation and noise; None for neither.
        stream: Seed and step: the key of the noise.
    """
    clip = (clip_norm / (norms.total + 1e-6)).clamp(max=1.0)  # as torch's own clipping has it
    # Read by the fused kernel, on the device; it stays set, so that nothing moves until the host learns of it.
    halted = (broken | ~torch.isfinite(norms.total)).to(clip.dtype)
    optimizer.found_inf = torch.maximum(getattr(optimizer, "found_inf", halted), halted)  # type: ignore[attr-defined]
    acts_on, noise = (modulate.acts_on, modulate.noise) if modulate is not None else (None, False)
    gradient_factors = clip.repeat(len(optimizer.param_groups))
    rate_factors = torch.ones_like(gradient_factors)
    if acts_on is not None:
        (gradient_factors if acts_on == "gradient" else rate_factors)[:-1] *= coefficient
    gradient_factors = gradient_factors.clamp_min(1e-30)  # k may be 0, and noise has a floor
    deviations = _deviations(model, norms) if noise else []
    if acts_on == "gradient":
        floors = 1e-8 / gradient_factors  # the released code's, whose gradients are scaled by then
        _add_noise(model, [own + floor for own, floor in zip(deviations, floors, strict=False)], stream, to="gradient")
    _step(optimizer, gradient_factors, rate_factors)
    if acts_on == "update":
        # What SGD's gradient noise makes of a step: rate times deviation. Where nothing may move, nothing is added.
        rates = [group["lr"] * (1 - optimizer.found_inf) for group in optimizer.param_groups]  # type: ignore[attr-defined]
        clipped = [clip.nan_to_num(0.0) * own + 1e-8 for own in deviations]
        _add_noise(model, [rate * own for rate, own in zip(rates, clipped, strict=False)], stream, to="update")


def encoder_gradients(model: Ada2I, modality: Modality) -> dict[str, Tensor]:
    """Return an encoder's gradients by parameter name, in the order of its group."""
    named = model.encoders[modality].named_parameters()
    return {f"encoders.{modality}.{name}": p.grad for name, p in named if p.grad is not None}


def _step(optimizer: torch.optim.Adam, gradient_factors: Tensor, rate_factors: Tensor) -> None:
    """Step with each group's gradients and rate times a factor; Adam's step is proportional to its rate.

    The fused kernel divides gradients as it reads them, and takes a divisor for a call: a call for each group.
    """
    groups = optimizer.param_groups
    try:
        for group, gradient, rate in zip(groups, gradient_factors.unbind(), rate_factors.unbind(), strict=True):
            optimizer.param_groups = [group | {"lr": rate * group["lr"]}]
            optimizer.grad_scale = 1 / gradient  # type: ignore[attr-defined]
            optimizer.step()
    finally:
        optimizer.param_groups = groups


def _deviations(model: Ada2I, norms: Norms) -> list[Tensor]:
    """Return for each encoder the standard deviations of its gradients, ``(P,)``."""
    gradients = [list(encoder_gradients(model, m).values()) for m in model.modalities]
    return [balance.deviations(own, norm) for own, norm in zip(gradients, norms.by_group, strict=False)]


def _add_noise(
    model: Ada2I, deviations: Sequence[Tensor], stream: tuple[int, int], *, to: Literal["gradient", "update"]
) -> None:
    """Add noise to the encoders' gradients or parameters."""
    for m, own in zip(model.modalities, deviations, strict=False):
        gradients = encoder_gradients(model, m)
        moved = [p.data for p in model.encoders[m].parameters() if p.grad is not None]
        balance.add_noise_(list(gradients.values()) if to == "gradient" else moved, list(gradients), own, stream)


def _gradients(group: dict[str, Any]) -> Sequence[Tensor]:
    return [p.grad for p in group["params"] if p.grad is not None]
