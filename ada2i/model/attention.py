"""Attention of each utterance to its own dialogue: the only place where dialogues of different length share a grid.

Dialogues of similar length share one, so that little of it is empty (``batch.Layout.parts``).

Shape letters in this file:
    R rows: the N utterances, or the S slots of the padded grid     B dialogues     T longest dialogue of a part
    D width of the modality's features     A attention heads
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ada2i.batch import Layout, Part
from ada2i.fast.dropout import dropout

Masks = Sequence[Tensor | None]  # by part: bool, true where a query sees a key, or what is added to its logit


def visibility(layout: Layout, present: Tensor | None, *, causal: bool) -> list[Tensor | None]:
    """Say which utterances of its dialogue each one attends to.

    Args:
        layout: Which rows belong to which dialogue.
        present: ``(R,)`` bool: what is absent is seen by itself alone. None: nothing is absent.
        causal: Whether the future is hidden.

    Returns:
        For each part of the layout ``(B, 1, T or 1, T)`` bool, true where a query (third axis) sees a key; None where
        all see all.
    """
    return [_visible(part, present, causal=causal) for part in layout.parts]


def dialogue_attention(projected: Tensor, layout: Layout, masks: Masks, *, heads: int, dropout_p: float) -> Tensor:
    """Scaled dot-product attention of each utterance to its own dialogue.

    Args:
        projected: ``(R, 3 * D)``: queries, keys and values.
        layout: Which rows belong to which dialogue.
        masks: For each part of the layout ``(1 or B, 1 or A, T or 1, T)``; see ``visibility``.
        heads: ``A``; divides ``D``.
        dropout_p: Probability with which an attention weight is dropped.

    Returns:
        ``(R, D)``.
    """
    grids = []
    for part, mask in zip(layout.parts, masks, strict=True):
        grid = part.grid(projected)
        q, k, v = grid.view(*grid.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)  # (B, A, T, D / A)
        grids.append(_attend(q, k, v, mask, dropout_p).transpose(1, 2).flatten(2).flatten(0, 1))
    slots = grids[0] if len(grids) == 1 else torch.cat(grids)
    return slots if layout.is_full else slots.index_select(0, layout.from_parts)


def _visible(part: Part, present: Tensor | None, *, causal: bool) -> Tensor | None:
    layout = part.layout
    if present is None and not causal:
        return None if layout.is_full else layout.occupied[:, None, None, :]
    keys = layout.occupied if present is None else layout.occupied & part.grid(present)
    seen = keys[:, None, None, :].expand(-1, 1, layout.padded_length, -1)  # (B, 1, T, T)
    if causal:
        seen = seen & torch.ones(seen.shape[2:], dtype=torch.bool, device=seen.device).tril()
    # Each sees itself, so that no row is without a key: softmax over nothing is no number.
    return seen | torch.eye(layout.padded_length, dtype=torch.bool, device=seen.device)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout_p: float) -> Tensor:
    if dropout_p == 0.0 or q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_p)
    # On a CPU torch's own falls back to the same products, with its slow dropout.
    dialogues, heads, length, width = q.shape
    bias = q.new_zeros(1, 1, 1)
    if mask is not None:
        logits = q.new_zeros(mask.shape).masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else mask
        bias = logits.expand(dialogues, heads, -1, -1).flatten(0, 1)
    q, k, v = (x.reshape(-1, length, width) for x in (q, k, v))
    scores = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=width**-0.5)  # (B * A, T, T)
    weights = dropout(torch.softmax(scores, dim=-1), dropout_p, training=True)
    return torch.bmm(weights, v).view(dialogues, heads, length, width)
