"""Gradient clipping: the norms of all gradients, and the factor that limits their total.

Shape letters in this file:
    M modalities     P parameters of a group
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Norms(NamedTuple):
    """L2 norms of gradients.

    Attributes:
        by_group: ``(P,)`` for each of the optimizer's groups.
        by_encoder: ``(M,)``.
        total: Scalar.
    """

    by_group: Sequence[Tensor]
    by_encoder: Tensor
    total: Tensor


def gradient_norms(optimizer: torch.optim.Optimizer) -> Norms:
    """Return the norms of all gradients."""
    groups = [[p.grad for p in group["params"] if p.grad is not None] for group in optimizer.param_groups]
    norms = torch.stack(torch._foreach_norm([gradient for group in groups for gradient in group]))
    by_group = torch.split(norms, [len(group) for group in groups])
    together = torch.stack([norm.norm() for norm in by_group])
    return Norms(by_group, together[:-1], together.norm())


def not_finite(number: Tensor) -> Tensor:
    """Return 1 for numbers that are infinite or NaN, else 0, in their dtype."""
    return (number - number != 0).to(number.dtype)  # two operators fewer than torch.isfinite


def clip_factor(norms: Norms, clip_norm: float) -> Tensor:
    """Return the scalar factor, at most 1, by which gradients of these norms are clipped to a total norm."""
    return (clip_norm / (norms.total + 1e-6)).clamp(max=1.0)  # same formula as torch's clipping
