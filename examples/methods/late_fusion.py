"""Late fusion: each modality predicts alone, and the mean of the predictions decides.

    ada2i train FEATURES --set model.fusion=examples.methods.late_fusion:LateFusion

Shape letters in this file:
    N utterances     M modalities     H hidden width     C classes
"""

import torch
from torch import Tensor, nn

from ada2i.batch import Layout


class LateFusion(nn.Module):
    """The mean of the votes of those modalities that an utterance has."""

    def __init__(self, modalities: tuple[str, ...], hidden_dim: int, classes: int) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({m: nn.Linear(hidden_dim, classes) for m in modalities})

    def forward(
        self,
        encoded: dict[str, Tensor],
        present: dict[str, Tensor],
        layout: Layout,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor]:
        """Return logits ``(N, C)`` and votes ``(M, N, C)`` from encodings ``(N, H)``."""
        votes = torch.stack([self.heads[m](x) * present[m][:, None] for m, x in encoded.items()])
        known = torch.stack(list(present.values())).sum(dim=0).clamp_min(1)
        return votes.sum(dim=0) / known[:, None], votes
