"""Scaled dot-product attention, with dropout of its own on a CPU, where torch's is slow and of many operators."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ada2i.fast.dropout import dropout


def attend(projected: Tensor, mask: Tensor | None, dropout_p: float) -> Tensor:
    """Return the weighted mean of the values for each query.

    Args:
        projected: ``(3, B, A, T, D)`` queries, keys and values.
        mask: Broadcasts to ``(B, A, T, T)``: bool, true if a query sees a key, or what is added to its logit. None: all
            see all.
        dropout_p: Probability with which an attention weight is dropped.

    Returns:
        ``(B, A, T, D)``.
    """
    if dropout_p == 0.0 or projected.device.type != "cpu":
        q, k, v = projected.unbind()
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_p)
    _, dialogues, heads, length, width = projected.shape
    q, k, v = projected.flatten(1, 2).unbind()  # (B * A, T, D)
    if mask is None:
        scores = torch.bmm(q * width**-0.5, k.transpose(1, 2))  # (B * A, T, T)
    else:
        logits = torch.where(mask, 0.0, float("-inf")).to(q.dtype) if mask.dtype == torch.bool else mask
        bias = logits.expand(dialogues, heads, length, length).flatten(0, 1)
        scores = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=width**-0.5)
    weights = dropout(torch.softmax(scores, dim=-1), dropout_p, training=True)
    return torch.unflatten(torch.bmm(weights, v), 0, (dialogues, heads))
