"""Cross-entropies of single modalities, and votes that no other modality has influenced.

Shape letters in this file:
    N utterances     M modalities     C classes     H hidden width
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ada2i.batch import DialogueBatch
from ada2i.modalities import Modality
from ada2i.model.ada2i import Ada2I, Prediction
from ada2i.records import UNLABELLED


def voters(model: Ada2I, batch: DialogueBatch) -> Tensor:
    """Return which utterances have a modality and a label (in regression, a target), ``(M, N)`` bool."""
    return torch.stack([batch.present[m] for m in model.modalities]) & batch.known


def entropies(logits: Tensor, batch: DialogueBatch, class_weights: Tensor | None = None) -> Tensor:
    """Return cross-entropies (nats), or in regression distances, ``(M, N)`` of ``(M, N, C)``; 0 without a label."""
    if batch.targets is not None:
        return batch.distances(logits[..., 0])
    labels = batch.labels.expand(len(logits), -1).flatten()
    found = F.cross_entropy(
        logits.flatten(0, 1), labels, weight=class_weights, reduction="none", ignore_index=UNLABELLED
    )
    return found.view(logits.shape[:2])


def encodings(prediction: Prediction, batch: DialogueBatch) -> dict[Modality, Tensor]:
    """Return the encoders' outputs by modality, ``(N, H)``."""
    rows = len(batch.labels)
    return {m: x if len(x) == rows else batch.layout.unpad(x) for m, x in prediction.encoded.items()}


def stacked_encodings(prediction: Prediction, batch: DialogueBatch) -> Tensor:
    """Return the encoders' outputs, ``(M, N, H)`` float32."""
    return torch.stack(list(encodings(prediction, batch).values())).float()


def own_votes(model: Ada2I, encoded: Mapping[Modality, Tensor], batch: DialogueBatch, *, train_head: bool) -> Tensor:
    """Return votes before feature weighting, which mixes modalities, ``(M, N, C)``.

    Args:
        model: The model.
        encoded: By modality, ``(N, H)``.
        batch: The batch of ``N`` utterances.
        train_head: Whether the classifier gets a gradient.
    """
    return model.fusion.alone(torch.stack(list(encoded.values())), batch.layout, train_head=train_head)
