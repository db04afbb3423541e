"""Loss terms as (sum, count): divided once, by counts over all ranks, so all utterances have equal weight.

Shape letters in this file:
    N utterances     S slots of the padded grid     C classes
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ada2i.batch import DialogueBatch
from ada2i.model.ada2i import Prediction
from ada2i.records import UNLABELLED


class Term(NamedTuple):
    """One loss term of one rank.

    Attributes:
        total: Scalar sum over this rank's rows.
        global_count: Rows over all ranks; every rank knows it from the batch, without communication.
    """

    total: Tensor
    global_count: int | Tensor

    def share(self) -> Tensor:
        """Return this rank's part of the global mean; the parts of all ranks sum to it."""
        return self.total / self.global_count


def classification_loss(
    prediction: Prediction,
    batch: DialogueBatch,
    class_weights: Tensor | None = None,
    row_weights: Tensor | None = None,
) -> Term:
    """Negative log-likelihood (nats) of the true class under the fused logits, weighted as in ``cross_entropy``."""
    return cross_entropy(prediction.logits, batch, class_weights, row_weights)


def cross_entropy(
    logits: Tensor, batch: DialogueBatch, weights: Tensor | None = None, rows: Tensor | None = None
) -> Term:
    """Cross-entropy (nats) of ``(N, C)`` logits over the labelled utterances.

    Args:
        logits: ``(N, C)``.
        batch: The utterances; those without a label do not count.
        weights: ``(C,)`` weight of each class; None: 1.
        rows: ``(N,)`` weight of each utterance; None: 1. The divisor stays the number of labelled utterances.

    In regression it is the L1 distance of ``(N, 1)`` from the targets, over the utterances that have one.
    """
    if batch.targets is not None:
        return Term(batch.distances(logits[:, 0]).sum(), batch.global_labelled)
    reduction = "sum" if rows is None else "none"
    found = F.cross_entropy(logits, batch.labels, weight=weights, reduction=reduction, ignore_index=UNLABELLED)
    return Term(found if rows is None else (found * rows).sum(), batch.global_labelled)


def balanced_weights(counts: Tensor, power: float) -> Tensor:
    """Return a weight per class: its share of train to minus ``power``, scaled so that the mean over train is 1.

    Args:
        counts: ``(C,)`` train utterances of each class.
        power: 0: all weigh 1; 1: all classes weigh the same together.

    Returns:
        ``(C,)`` float32; 1 for a class that train lacks.
    """
    counts = counts.double()
    raw = counts.clamp_min(1).pow(-power)
    scaled = raw * counts.sum() / (raw * counts).sum()
    return torch.where(counts > 0, scaled, torch.ones_like(scaled)).float()


def feature_loss(prediction: Prediction, batch: DialogueBatch, *, over_padding: bool) -> Term:
    """L_feature: the mapping network's L1 distance, over utterances or all slots of the padded grid (released code)."""
    if prediction.mapping_gap is None:
        return Term(prediction.logits.new_zeros(()), 1)
    slots = batch.global_dialogues * batch.layout.padded_length
    return Term(prediction.mapping_gap.sum(), slots if over_padding else batch.global_utterances)


def distillation_loss(prediction: Prediction, batch: DialogueBatch, temperature: float) -> Term:
    """Cross-entropy (nats) of the teachers' mean probabilities, over all utterances, with a label or without.

    Hinton, Vinyals and Dean 2015: -T^2 sum over classes of q log softmax(z / T), where z are the student's logits and q
    the teachers' probabilities to the power 1 / T, scaled to the sum 1. The factor keeps the size of its gradient.
    """
    assert batch.taught is not None
    targets = batch.taught.pow(1 / temperature)
    targets = targets / targets.sum(dim=-1, keepdim=True).clamp_min(1e-12)
    logs = F.log_softmax(prediction.logits / temperature, dim=-1)
    return Term(-(targets * logs).sum() * temperature**2, batch.global_utterances)
