"""From gradients to new weights: norms, clipping, modulation, noise and Adam, with as few passes as they allow.

The optimizer has a parameter group per encoder, in the model's order, and one for the rest. Adam's fused kernel divides
gradients by a factor as it reads them, so clipping costs no pass of its own, and takes a learning rate per group, so
neither does modulation of the update.

Shape letters in this file:
    M modalities
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from ada2i.config import BalanceConfig
from ada2i.model.ada2i import Ada2I
from ada2i.training import balance
from ada2i.training.balance import Gradients


def make_optimizer(model: Ada2I, *, learning_rate: float, weight_decay: float) -> torch.optim.Adam:
    """Return Adam over a group of parameters per encoder, in the model's order, and one of the rest."""
    encoders = [list(model.encoders[m].parameters()) for m in model.modalities]
    of_encoders = {id(p) for group in encoders for p in group}
    rest = [p for p in model.parameters() if id(p) not in of_encoders]
    groups: list[dict[str, Any]] = [{"params": group} for group in (*encoders, rest)]
    return torch.optim.Adam(groups, lr=learning_rate, weight_decay=weight_decay, fused=True)


def gradient_norms(optimizer: torch.optim.Optimizer) -> tuple[Tensor, Tensor]:
    """Return the L2 norms of each encoder's gradients, ``(M,)``, and of all gradients, a scalar."""
    groups = [_gradients(group) for group in optimizer.param_groups]
    norms = torch.stack(torch._foreach_norm([gradient for group in groups for gradient in group]))
    ends = list(accumulate(len(group) for group in groups))
    by_group = torch.stack([norms[end - len(group) : end].norm() for end, group in zip(ends, groups, strict=True)])
    return by_group[:-1], by_group.norm()


def update(
    model: Ada2I,
    optimizer: torch.optim.Adam,
    *,
    norm: Tensor,
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
        norm: Scalar L2 norm of all gradients.
        broken: Scalar bool, true where no step may be taken; then none is, now and later.
        clip_norm: L2 norm to clip to.
        coefficient: ``(M,)`` k_m.
        modulate: Modulation and noise; None for neither.
        stream: Seed and step: the key of the noise.
    """
    clip = (clip_norm / (norm + 1e-6)).clamp(max=1.0)  # as torch's own clipping has it
    optimizer.grad_scale = 1 / clip  # type: ignore[attr-defined]
    # Read by the fused kernel, on the device; it stays set, so that nothing moves until the host learns of it.
    halted = (broken | ~torch.isfinite(norm)).to(norm.dtype)
    optimizer.found_inf = torch.maximum(getattr(optimizer, "found_inf", halted), halted)  # type: ignore[attr-defined]
    if modulate is None:
        optimizer.step()
    elif modulate.acts_on == "gradient":
        _modulate_gradients(model, coefficient, clip, stream if modulate.noise else None)
        optimizer.step()
    else:
        _step_by_encoder(optimizer, coefficient)
        if modulate.noise:
            _add_update_noise(model, optimizer, stream, halted=optimizer.found_inf)  # type: ignore[attr-defined]


def encoder_gradients(model: Ada2I) -> list[Gradients]:
    """Return each modality's encoder gradients by parameter name, modalities in the model's order."""
    return [
        {
            f"encoders.{m}.{name}": parameter.grad
            for name, parameter in model.encoders[m].named_parameters()
            if parameter.grad is not None
        }
        for m in model.modalities
    ]


def _modulate_gradients(model: Ada2I, coefficient: Tensor, clip: Tensor, stream: tuple[int, int] | None) -> None:
    """Scale the encoders' gradients, and add noise of the deviation that they have when clipped."""
    for gradients, k in zip(encoder_gradients(model), coefficient.unbind(), strict=True):
        tensors = list(gradients.values())
        torch._foreach_mul_(tensors, k)
        if stream is not None:
            balance.add_noise_(tensors, gradients, stream, scale=1.0, floor=1e-8 / clip)


def _step_by_encoder(optimizer: torch.optim.Adam, coefficient: Tensor) -> None:
    # Adam's step is proportional to its rate, so a rate per encoder shortens the step by exactly k_m.
    rates = [group["lr"] for group in optimizer.param_groups]
    for group, k in zip(optimizer.param_groups, coefficient.unbind(), strict=False):  # all but the last
        group["lr"] = k * group["lr"]
    optimizer.step()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def _add_update_noise(model: Ada2I, optimizer: torch.optim.Adam, stream: tuple[int, int], *, halted: Tensor) -> None:
    """Add to each encoder parameter the noise that SGD's gradient noise makes of a step: rate times its deviation."""
    for m, gradients, group in zip(model.modalities, encoder_gradients(model), optimizer.param_groups, strict=False):
        named = dict(model.encoders[m].named_parameters())
        parameters = [named[name.removeprefix(f"encoders.{m}.")].data for name in gradients]
        rate = group["lr"] * (1 - halted)
        balance.add_noise_(parameters, gradients, stream, scale=rate, floor=1e-8 * rate)


def _gradients(group: dict[str, Any]) -> Sequence[Tensor]:
    return [p.grad for p in group["params"] if p.grad is not None]
