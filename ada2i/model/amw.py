"""Adaptive modality weighting (paper, section 3.4): each modality votes by its feature's direction, not its length.

Shape letters in this file:
    N utterances     M modalities     H hidden width     C classes
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ada2i.modalities import Modality


class Fusion(nn.Module):
    """One linear classifier over the concatenated modalities, with or without normalisation of each modality's part."""

    def __init__(self, *, modalities: tuple[Modality, ...], hidden_dim: int, classes: int, normalised: bool) -> None:
        super().__init__()
        self.modalities = modalities
        self.normalised = normalised
        self.classifier = nn.Linear(hidden_dim * len(modalities), classes)

    def forward(self, features: dict[Modality, Tensor]) -> Tensor:
        """Return the fused logits, ``(N, C)``, for features by modality, ``(N, H)``."""
        if not self.normalised:
            fused: Tensor = self.classifier(torch.cat([features[m] for m in self.modalities], dim=-1))
            return fused
        votes = [
            # The released code normalises class weights over classes, so this is not yet a cosine.
            F.normalize(features[m], dim=-1) @ F.normalize(part, dim=0).T
            for m, part in self._parts().items()
        ]
        return sum(votes[1:], start=votes[0]) + self.classifier.bias

    def unimodal(self, features: dict[Modality, Tensor]) -> Tensor:
        """Return what each modality says alone, ``(M, N, C)``: its part of the classifier, un-normalised, bias / M."""
        share = self.classifier.bias / len(self.modalities)
        return torch.stack([features[m] @ part.T + share for m, part in self._parts().items()])

    def _parts(self) -> dict[Modality, Tensor]:
        """The classifier's columns by modality, ``(C, H)``."""
        parts = self.classifier.weight.chunk(len(self.modalities), dim=1)
        return dict(zip(self.modalities, parts, strict=True))
