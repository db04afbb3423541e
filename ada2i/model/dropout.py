"""Dropout that is quick on a CPU, where torch draws one element at a time.

Shape letters in this file:
    W 64-bit words
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_STEPS = 1 << 16  # one draw of 16 bits for each element


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Zero each element with probability ``p`` in training and scale the others by ``1 / (1 - p)``.

    On a CPU a whole word of torch's generator serves four elements, so ``p`` is rounded to 1 / 65536, and the scale
    with it: the expectation stays exact. The draws depend on the generator's state alone, as torch's do.

    Args:
        x: Any shape, float.
        p: In ``[0, 1)``.
        training: Whether to drop anything.

    Returns:
        Shape and dtype of ``x``.
    """
    if not training or p == 0.0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, p)
    dropped = min(round(p * _STEPS), _STEPS - 1)
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)  # (W,)
    bits = words.view(torch.int16)[: x.numel()].view(x.shape)
    keep = bits >= dropped - _STEPS // 2
    return _Masked.apply(x, keep, _STEPS / (_STEPS - dropped))  # type: ignore[no-any-return, no-untyped-call]


class _Masked(torch.autograd.Function):
    """A product with a mask of one byte an element, which is all that the backward pass keeps."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(keep)
        ctx.scale = scale
        return (x * keep).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (keep,) = ctx.saved_tensors
        return (gradients[0] * keep).mul_(ctx.scale), None, None
