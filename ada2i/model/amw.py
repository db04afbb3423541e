"""Adaptive modality weighting (paper, section 3.4): each modality votes by its feature's direction, not its length.

Shape letters in this file:
    N utterances     M modalities     H hidden width     C classes
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ada2i.modalities import Modality


class Fusion(nn.Module):
    """One linear classifier over the modalities, whose parts are normalised so that no modality outshouts another."""

    def __init__(
        self,
        *,
        modalities: tuple[Modality, ...],
        hidden_dim: int,
        classes: int,
        normalise: str | None,
        scale: float = 1.0,
        learn_scale: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.modalities = modalities
        self.normalise = normalise
        self.classifier = nn.Linear(hidden_dim * len(modalities), classes, bias=bias)
        self.scale = nn.Parameter(torch.tensor(scale)) if learn_scale else scale

    def forward(self, features: Mapping[Modality, Tensor], present: Mapping[Modality, Tensor] | None) -> Tensor:
        """Return each modality's vote, ``(M, N, C)``; the fused logits are their sum and the classifier's bias.

        Args:
            features: By modality, ``(N, H)``.
            present: By modality, ``(N,)`` bool: an absent modality votes zero. None: all vote.
        """
        votes = torch.stack([self._vote(features[m], part) for m, part in self._parts().items()])
        if present is None:
            return votes
        return votes * torch.stack([present[m] for m in self.modalities])[:, :, None]

    def fuse(self, votes: Tensor) -> Tensor:
        """Return the fused logits, ``(N, C)``, of the votes."""
        fused = votes.sum(dim=0)
        return fused if self.classifier.bias is None else fused + self.classifier.bias

    def unimodal(self, features: Mapping[Modality, Tensor]) -> Tensor:
        """Return what each modality says alone, ``(M, N, C)``: its part of the classifier, un-normalised, bias / M."""
        alone = torch.stack([features[m] @ part.T for m, part in self._parts().items()])
        return alone if self.classifier.bias is None else alone + self.classifier.bias / len(self.modalities)

    def _vote(self, features: Tensor, part: Tensor) -> Tensor:
        if self.normalise is None:
            return features @ part.T
        # Over hidden: cosines. Over classes, as the released code has it, nearly so: a factor of about sqrt(H / C).
        weights = F.normalize(part, dim=0 if self.normalise == "classes" else 1)
        return self.scale * (F.normalize(features, dim=-1) @ weights.T)

    def _parts(self) -> dict[Modality, Tensor]:
        """The classifier's columns by modality, ``(C, H)``."""
        parts = self.classifier.weight.chunk(len(self.modalities), dim=1)
        return dict(zip(self.modalities, parts, strict=True))
