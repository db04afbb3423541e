"""Scaled dot-product attention with dropout on a CPU; the plain twin is torch's implementation.

On a CPU, torch uses the same products if weights are dropped, with its slow dropout.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ada2i import fast
from ada2i.fast.dropout import dropout


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout_p: float) -> Tensor:
    """Return the weighted mean of the values for each query.

    Args:
        q: ``(B, A, T, D)`` queries; ``k`` and ``v`` have the same shape.
        k: Keys.
        v: Values.
        mask: Broadcasts to ``(B, A, T, T)``: bool, true if a query sees a key, or what is added to its logit. None: all
            see all.
        dropout_p: Probability with which an attention weight is dropped.
    """
    if dropout_p == 0.0 or q.device.type != "cpu" or not fast.enabled():
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_p)
    dialogues, heads, length, width = q.shape
    bias = q.new_zeros(1, 1, 1)
    if mask is not None:
        logits = q.new_zeros(mask.shape).masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else mask
        bias = logits.expand(dialogues, heads, -1, -1).flatten(0, 1)
    q, k, v = (x.reshape(-1, length, width) for x in (q, k, v))
    scores = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=width**-0.5)  # (B * A, T, T)
    weights = dropout(torch.softmax(scores, dim=-1), dropout_p, training=True)
    return torch.bmm(weights, v).view(dialogues, heads, length, width)
