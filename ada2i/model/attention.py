"""Attention of each utterance to its own dialogue, over padded grids that dialogues share (``batch.Layout.parts``).

Shape letters in this file:
    R rows: the N utterances, or the S slots of the padded grid     B dialogues     T longest dialogue of a part
    D width of the modality's features     A attention heads
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ada2i.batch import Layout, Part
from ada2i.fast.attention import attend

Masks = Sequence[Tensor | None]  # by part: bool, true if a query sees a key, or a term added to its logit


def visibility(layout: Layout, present: Tensor | None, *, causal: bool) -> list[Tensor | None]:
    """Return which utterances of its dialogue each one attends to.

    Args:
        layout: The rows of each dialogue.
        present: ``(R,)`` bool: an absent utterance is only seen by itself. None: all are present.
        causal: Whether later utterances are hidden.

    Returns:
        For each part of the layout ``(B, 1, T or 1, T)`` bool, true if a query (third axis) sees a key; None if all
        queries see all keys.
    """
    return [_visible(part, present, causal=causal) for part in layout.parts]


def dialogue_attention(projected: Tensor, layout: Layout, masks: Masks, *, heads: int, dropout_p: float) -> Tensor:
    """Scaled dot-product attention of each utterance to its own dialogue.

    Args:
        projected: ``(R, 3 * D)``: queries, keys and values.
        layout: The rows of each dialogue.
        masks: For each part of the layout ``(1 or B, 1 or A, T or 1, T)``; see ``visibility``.
        heads: ``A``; divides ``D``.
        dropout_p: Probability with which an attention weight is dropped.

    Returns:
        ``(R, D)``.
    """
    grids = attend(layout.to_grids(projected), layout.grid_shapes, masks, heads, dropout_p)
    return layout.from_grids(grids)


def _visible(part: Part, present: Tensor | None, *, causal: bool) -> Tensor | None:
    layout = part.layout
    if present is None and not causal:
        return None if layout.is_full else layout.occupied[:, None, None, :]
    keys = layout.occupied if present is None else layout.occupied & part.grid(present)
    seen = keys[:, None, None, :].expand(-1, 1, layout.padded_length, -1)  # (B, 1, T, T)
    if causal:
        seen = seen & torch.ones(seen.shape[2:], dtype=torch.bool, device=seen.device).tril()
    # Each utterance sees itself, so that every row has a key: a softmax over no keys is NaN.
    return seen | torch.eye(layout.padded_length, dtype=torch.bool, device=seen.device)
