"""Adaptive modality weighting (paper, section 3.4): each modality votes by its feature's direction, not its length.

Shape letters in this file:
    N utterances     M modalities     H hidden width     C classes
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ada2i.modalities import Modality

_LEAST = 0.1  # of the best modality's weight: a weak modality still learns


class Fusion(nn.Module):
    """One linear classifier over the modalities, whose parts are normalised so that no modality outshouts another."""

    weights: Tensor | None  # (M,)

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
        weighted: bool = False,
    ) -> None:
        super().__init__()
        self.modalities = modalities
        self.normalise = normalise
        self.classifier = nn.Linear(hidden_dim * len(modalities), classes, bias=bias)
        self.scale = nn.Parameter(torch.tensor(scale)) if learn_scale else scale
        if weighted:
            self.register_buffer("weights", torch.ones(len(modalities)))
        else:
            self.weights = None

    def weigh(self, skills: Mapping[Modality, float]) -> None:
        """Weigh votes by skill, the best modality's being 1.

        A vote that is right with probability p counts by its log-odds against chance (Nitzan and Paroush 1982: the
        optimal weights of independent voters; for C classes, Zhu et al. 2009, equation 2), a tenth of the best at
        least.

        Args:
            skills: By modality, a score in 0..1 on data that the scorer did not see.
        """
        assert self.weights is not None
        classes = self.classifier.out_features
        odds = [_log_odds(skills[m], classes) for m in self.modalities]
        best = max(odds)
        shares = [max(x / best, _LEAST) if best > 0 else 1.0 for x in odds]
        self.weights.copy_(torch.tensor(shares))

    def forward(self, features: Mapping[Modality, Tensor], present: Mapping[Modality, Tensor] | None) -> Tensor:
        """Return each modality's vote, ``(M, N, C)``; see ``fuse`` for their weighted sum.

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
        fused = (votes if self.weights is None else votes * self.weights[:, None, None]).sum(dim=0)
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


def _log_odds(skill: float, classes: int) -> float:
    right = min(max(skill, 1e-3), 1 - 1e-3)
    return math.log((classes - 1) * right / (1 - right))
