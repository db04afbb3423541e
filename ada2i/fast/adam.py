"""A step of Adam whose gradients and learning rates are scaled by group, with as few passes as possible.

Adam's fused kernel divides gradients by ``grad_scale`` as it reads them and does nothing if ``found_inf`` is 1; it
reads both on the device. So clipping and modulation need no additional pass, and no step waits for the device. The
plain implementation multiplies the gradients in place and waits for the device to know whether to step.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ada2i import fast


def scaled_step(
    optimizer: torch.optim.Adam, gradient_factors: Tensor, rate_factors: Tensor | None, broken: Tensor
) -> Tensor:
    """Step with each group's gradients and rate multiplied by a factor, unless this or an earlier step is broken.

    Args:
        optimizer: An optimizer with the fused kernel.
        gradient_factors: ``(G,)``, one for each of its parameter groups; positive.
        rate_factors: ``(G,)``; Adam's step is proportional to its rate. None: all are 1.
        broken: Scalar 0 or 1: 1 stops the optimizer, now and in all later steps.

    Returns:
        Scalar 1 if the optimizer stepped, else 0.
    """
    # `found_inf` stays 1, so that no later step runs until the host reads the step's status.
    if not hasattr(optimizer, "found_inf"):
        optimizer.found_inf = torch.zeros_like(broken)  # type: ignore[attr-defined]
    stopped: Tensor = optimizer.found_inf  # type: ignore[attr-defined]
    torch.maximum(stopped, broken, out=stopped)
    step = _fused_step if fast.enabled() or stopped.is_cuda else _plain_step
    step(optimizer, gradient_factors, rate_factors)
    return 1 - stopped


def _fused_step(optimizer: torch.optim.Adam, gradient_factors: Tensor, rate_factors: Tensor | None) -> None:
    groups, divisors = optimizer.param_groups, (1 / gradient_factors).unbind()
    try:
        # The kernel takes only one divisor per call, so there is one call per group.
        for group, rate, divisor in zip(
            groups, _rates(optimizer, rate_factors, gradient_factors), divisors, strict=True
        ):
            optimizer.param_groups = [group | {"lr": rate}]
            optimizer.grad_scale = divisor  # type: ignore[attr-defined]
            optimizer.step()
    finally:
        optimizer.param_groups = groups


def _rates(optimizer: torch.optim.Adam, factors: Tensor | None, like: Tensor) -> Sequence[Tensor]:
    """Return each group's rate, on the device; all groups have one rate before their factors."""
    rate = optimizer.param_groups[0]["lr"]
    rates: Tensor = (torch.ones_like(like) if factors is None else factors) * rate
    return rates.unbind()


def _plain_step(optimizer: torch.optim.Adam, gradient_factors: Tensor, rate_factors: Tensor | None) -> None:
    if optimizer.found_inf:  # type: ignore[attr-defined]
        return
    optimizer.grad_scale = torch.ones_like(gradient_factors[0])  # type: ignore[attr-defined]
    rates = [group["lr"] for group in optimizer.param_groups]
    scaled = _rates(optimizer, rate_factors, gradient_factors)
    for group, gradient, rate in zip(optimizer.param_groups, gradient_factors, scaled, strict=True):
        torch._foreach_mul_([p.grad for p in group["params"] if p.grad is not None], gradient)
        group["lr"] = float(rate)
    optimizer.step()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
