"""Dropout that is fast on a CPU, where torch draws one element at a time; the plain implementation is torch's.

Shape letters in this file:
    W 64-bit words
"""

import functools
from typing import Any

import torch
from torch import Tensor

from ada2i import fast
from ada2i.fast.operators import register

_STEPS = 1 << 16  # one draw of 16 bits for each element
_WINDOW = 1 << 19  # words; a table of random bits is twice as long
_SEEDS = (0x41646132, 0x49447270)  # of the two tables: any numbers


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Zero each element with probability ``p`` in training and scale the others by ``1 / (1 - p)``.

    On a CPU each element uses 16 random bits, so ``p`` is rounded to 1 / 65536, and the scale with it: the expectation
    stays exact. The draws depend on the generator's state alone, as torch's do.

    Args:
        x: Any shape, float.
        p: In ``[0, 1)``.
        training: Whether to drop anything.

    Returns:
        Shape and dtype of ``x``.
    """
    if not training or p == 0.0 or x.numel() == 0:
        return x
    if x.device.type != "cpu" or not fast.enabled():
        return torch.native_dropout(x, p, True)[0]  # as F.dropout on a GPU: one operator, and one for its gradient
    dropped: Tensor = _Dropout.apply(x, p)  # type: ignore[no-untyped-call]
    return dropped


def draw_kept(x: Tensor, p: float) -> Tensor:
    """Draw for each element of ``x`` 0 with probability ``p``, else ``1 / (1 - p)``, in the dtype of ``x``."""
    dropped = min(round(p * _STEPS), _STEPS - 1)
    bits = random_words((x.numel() + 3) // 4).view(torch.int16)[: x.numel()].view(x.shape)
    # Compared into the dtype of x: a mask of bool would be converted with every product.
    kept = torch.ge(bits, dropped - _STEPS // 2, out=torch.empty(x.shape, dtype=x.dtype))
    return kept.mul_(_STEPS / (_STEPS - dropped))


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        dropped, kept = torch.ops.ada2i.dropout(x, p)
        ctx.save_for_backward(kept)
        return dropped  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return gradient * kept, None


def random_words(count: int) -> Tensor:
    """Return random bits, ``(W,)`` int64, in a tenth of the time of torch's generator.

    Each window is the exclusive or of words of two tables, each read from a random offset. All bits of a window are
    independent, and two windows share words only if they start equally far apart in both tables.

    Args:
        count: ``W``.
    """
    windows = [min(_WINDOW, count - start) for start in range(0, count, _WINDOW)]
    places = torch.randint(_WINDOW, (len(windows), 2)).tolist()
    one, other = (_table(seed) for seed in _SEEDS)
    drawn = [one[i : i + n] ^ other[j : j + n] for n, (i, j) in zip(windows, places, strict=True)]
    return drawn[0] if len(drawn) == 1 else torch.cat(drawn)


@functools.cache
def _table(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.empty(2 * _WINDOW, dtype=torch.int64).random_(-(2**63), None, generator=generator)


def _forward(x: Tensor, p: float) -> tuple[Tensor, Tensor]:
    kept = draw_kept(x, p)
    return x * kept, kept


register("dropout(Tensor x, float p) -> (Tensor, Tensor)", _forward)
