"""Scaled dot-product attention over several padded grids; the plain implementation is torch's, one grid at a time.

On a CPU torch's attention with dropout is slow. This one is one operator for all grids, with a gradient of its own.

Shape letters in this file:
    G grids     B dialogues of a grid     T its length     S slots of all grids, the sum of B * T     A heads
    D width     d = D / A
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ada2i import fast
from ada2i.fast.dropout import draw_kept
from ada2i.fast.operators import register

_SAVED = 4  # tensors that a grid keeps for its gradient


def attend(
    projected: Tensor, shapes: Sequence[tuple[int, int]], masks: Sequence[Tensor | None], heads: int, dropout_p: float
) -> Tensor:
    """Return the weighted mean of the values for each query, within each dialogue.

    Args:
        projected: ``(S, 3 * D)`` queries, keys and values; the grids lie end to end.
        shapes: ``(B, T)`` of each grid.
        masks: For each grid what broadcasts to ``(B, A, T, T)``: bool, true if a query sees a key, or what is added to
            its logit. None: all see all.
        heads: ``A``; divides ``D``.
        dropout_p: Probability with which an attention weight is dropped.

    Returns:
        ``(S, D)``.
    """
    learned = any(mask is not None and mask.requires_grad for mask in masks)
    if dropout_p and projected.device.type == "cpu" and fast.enabled() and not learned:
        flat = [size for shape in shapes for size in shape]
        out: Tensor = _Attention.apply(projected, flat, list(masks), heads, dropout_p)  # type: ignore[no-untyped-call]
        return out
    grids = []
    for grid, mask in zip(_grids(projected, shapes), masks, strict=True):
        q, k, v = torch.unflatten(grid, 2, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind()  # (B, A, T, d)
        mean = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_p)
        grids.append(mean.transpose(1, 2).flatten(2).flatten(0, 1))
    return grids[0] if len(grids) == 1 else torch.cat(grids)


def _grids(rows: Tensor, shapes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Return the grids, ``(B, T, ...)``, of rows ``(S, ...)``."""
    parts = torch.split(rows, [dialogues * length for dialogues, length in shapes]) if len(shapes) > 1 else (rows,)
    return [torch.unflatten(part, 0, shape) for part, shape in zip(parts, shapes, strict=True)]


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 - `apply` takes positional arguments only
        ctx: Any, projected: Tensor, shapes: list[int], masks: list[Tensor | None], heads: int, dropout_p: float
    ) -> Tensor:
        mean, saved = torch.ops.ada2i.attention(projected, shapes, masks, heads, dropout_p)
        ctx.save_for_backward(*saved)
        ctx.shapes, ctx.heads = shapes, heads
        return mean  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        found = torch.ops.ada2i.attention_backward(gradient, list(ctx.saved_tensors), ctx.shapes, ctx.heads)
        return found, None, None, None, None


def _forward(
    projected: Tensor, flat: list[int], masks: list[Tensor | None], heads: int, dropout_p: float
) -> tuple[Tensor, list[Tensor]]:
    shapes = list(zip(flat[::2], flat[1::2], strict=True))
    means, saved = [], []
    for grid, mask in zip(_grids(projected, shapes), masks, strict=True):
        dialogues, length, width = *grid.shape[:2], grid.shape[2] // (3 * heads)
        qkv = torch.unflatten(grid, 2, (3, heads, width)).permute(2, 0, 3, 1, 4).flatten(1, 2)  # (3, B * A, T, d)
        q, k, v = qkv.unbind()
        if mask is None:
            scores = torch.bmm(q * width**-0.5, k.transpose(1, 2))  # (B * A, T, T)
        else:
            logits = torch.where(mask, 0.0, float("-inf")) if mask.dtype == torch.bool else mask
            bias = logits.to(q.dtype).expand(dialogues, heads, length, length).flatten(0, 1)
            scores = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=width**-0.5)
        weights = torch.softmax(scores, dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))
        kept = draw_kept(weights, dropout_p)
        dropped = (weights * kept).to(v.dtype)
        mean = torch.unflatten(torch.bmm(dropped, v), 0, (dialogues, heads))
        means.append(mean.transpose(1, 2).flatten(2).flatten(0, 1))
        saved += [qkv, weights, kept, dropped]
    return torch.cat(means), saved


def _backward(gradient: Tensor, saved: list[Tensor], flat: list[int], heads: int) -> Tensor:
    shapes, found = list(zip(flat[::2], flat[1::2], strict=True)), []
    for number, grid in enumerate(_grids(gradient, shapes)):
        qkv, weights, kept, dropped = saved[_SAVED * number : _SAVED * (number + 1)]
        q, k, v = qkv.unbind()
        scale = q.shape[2] ** -0.5
        of_mean = torch.unflatten(grid, 2, (heads, -1)).transpose(1, 2).flatten(0, 1)  # (B * A, T, d)
        of_weights = torch.bmm(of_mean, v.transpose(1, 2)) * kept
        of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype).to(q.dtype)
        of_qkv = torch.empty_like(qkv)
        torch.bmm(of_scores, k, out=of_qkv[0])
        torch.bmm(of_scores.transpose(1, 2), q, out=of_qkv[1])
        of_qkv[:2].mul_(scale)
        torch.bmm(dropped.transpose(1, 2), of_mean, out=of_qkv[2])
        laid = torch.unflatten(of_qkv, 1, (grid.shape[0], heads)).permute(1, 3, 0, 2, 4)  # (B, T, 3, A, d)
        found.append(laid.flatten(2).flatten(0, 1))
    return torch.cat(found)


register(
    "attention(Tensor projected, int[] shapes, Tensor?[] masks, int heads, float dropout_p) -> (Tensor, Tensor[])",
    _forward,
)
register("attention_backward(Tensor gradient, Tensor[] saved, int[] shapes, int heads) -> Tensor", _backward)
