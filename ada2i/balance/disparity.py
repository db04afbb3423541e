"""Disparity ratio and modulation: how far each modality is ahead of the weakest (paper, section 3.5).

Shape letters in this file:
    M modalities     N utterances     C classes
"""

import torch
from torch import Tensor


def of_true_class(values: Tensor, labels: Tensor) -> Tensor:
    """Return each modality's value of the true class, ``(M, N)`` of ``(M, N, C)``; that of class 0 without a label."""
    index = labels.clamp_min(0).expand(len(values), -1)[:, :, None]
    return values.gather(2, index)[:, :, 0]


def true_class_scores(unimodal_logits: Tensor, labels: Tensor, present: Tensor | None = None) -> Tensor:
    """Return s_m, ``(M,)``: the probability of the true class, summed over the utterances that ``counting`` returns.

    Args:
        unimodal_logits: ``(M, N, C)``.
        labels: ``(N,)`` int64, negative without a label.
        present: ``(M, N)`` bool: which utterances have a modality. None: all.
    """
    probabilities = of_true_class(torch.softmax(unimodal_logits, dim=-1), labels)
    return torch.where(counting(labels, present), probabilities, 0.0).sum(dim=1)


def counting(labels: Tensor, present: Tensor | None) -> Tensor:
    """Return which utterances have a label and the modality: ``(M, N)`` bool, or ``(1, N)`` if nothing is missing."""
    labelled = labels[None] >= 0
    return labelled if present is None else labelled & present


def counted(labels: Tensor, present: Tensor | None, modalities: int) -> Tensor:
    """Return n_m, ``(M,)``: the number of utterances that ``counting`` returns."""
    return counting(labels, present).sum(dim=1).float().expand(modalities)


def mean_scores(scores: Tensor, counts: Tensor) -> Tensor:
    """Return s_m / n_m times the largest n_m, ``(M,)``: s_m to the last bit if all n_m are equal."""
    return scores * (counts.max() / counts.clamp_min(1))


def disparity_ratio(scores: Tensor, counts: Tensor) -> Tensor:
    """Return rho_m, ``(M,)``: each modality's mean score over that of the weakest; 1 if no utterance counts.

    Args:
        scores: ``(M,)`` s_m.
        counts: ``(M,)`` n_m.
    """
    # A probability may underflow to zero, and a ratio must stay finite.
    means = mean_scores(scores, counts).clamp_min(1e-12)
    weakest = torch.where(counts > 0, means, torch.inf).min()
    return torch.where(counts > 0, means / weakest, 1.0)


def lead(scores: Tensor, counts: Tensor) -> Tensor:
    """Return each modality's mean score over the mean of the others', ``(M,)``; 1 where there is nothing to compare.

    With two modalities it is OGM's ratio, s_u / s_v.

    Args:
        scores: ``(M,)`` s_m.
        counts: ``(M,)`` n_m.
    """
    there = (counts > 0).to(scores.dtype)
    means = mean_scores(scores, counts).clamp_min(1e-12) * there
    others = there.sum() - there
    ahead = means * others / (means.sum() - means).clamp_min(1e-12)
    return torch.where((there > 0) & (others > 0), ahead, 1.0)


def modulation(ratio: Tensor, alpha: float) -> Tensor:
    """Return k_m, ``(M,)``: 1 - tanh(alpha * rho_m) where rho_m > 1, else 1."""
    return torch.where(ratio > 1, 1 - torch.tanh(alpha * ratio), torch.ones_like(ratio))
