"""Disparity ratio and modulation: how far each modality is ahead of the weakest (paper, section 3.5).

Shape letters in this file:
    M modalities     N utterances     C classes
"""

import torch
from torch import Tensor


def true_class_scores(unimodal_logits: Tensor, labels: Tensor) -> Tensor:
    """Return s_m, ``(M,)``: the probability of the true class, summed over labelled utterances.

    Args:
        unimodal_logits: ``(M, N, C)``.
        labels: ``(N,)`` int64, negative without a label.
    """
    probabilities = torch.softmax(unimodal_logits, dim=-1)
    index = labels.clamp_min(0).expand(len(unimodal_logits), -1)[:, :, None]
    return torch.where(labels[:, None] < 0, 0.0, probabilities.gather(2, index)).sum(dim=(1, 2))


def disparity_ratio(scores: Tensor) -> Tensor:
    """Return rho_m, ``(M,)``: each modality's summed score over that of the weakest."""
    scores = scores.clamp_min(1e-12)  # a probability may underflow to zero, and a ratio must stay finite
    return scores / scores.min()


def modulation(ratio: Tensor, alpha: float) -> Tensor:
    """Return k_m, ``(M,)``: 1 - tanh(alpha * rho_m) where rho_m > 1, else 1."""
    return torch.where(ratio > 1, 1 - torch.tanh(alpha * ratio), torch.ones_like(ratio))
