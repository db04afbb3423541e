"""Adaptive modality weighting (paper, section 3.4): each modality votes by its feature's direction, not its length.

Shape letters in this file:
    N utterances     M modalities     H hidden width     C classes
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ada2i.batch import Layout
from ada2i.modalities import Modality
from ada2i.model.afw import Present

_LEAST = 0.1  # minimum weight, relative to the best modality's: a weak modality still learns

Vote = Callable[[Tensor, Tensor], Tensor]  # from features (N, H) and a modality's part of the classifier (C, H), (N, C)


def linear_vote(features: Tensor, part: Tensor) -> Tensor:
    """Vote by a plain linear classifier (an ablation)."""
    return features @ part.T


@dataclass(frozen=True)
class CosineVote:
    """Vote by the direction of the feature.

    Attributes:
        dim: Axis over which the classifier is normalised. 1, the width: cosines (paper). 0, the classes (released
            code): nearly cosines, times a factor of about sqrt(H / C).
        scale: Factor of the vote.
    """

    dim: int
    scale: float = 1.0

    def __call__(self, features: Tensor, part: Tensor) -> Tensor:
        """See ``Vote``."""
        return self.scale * (F.normalize(features, dim=-1) @ F.normalize(part, dim=self.dim).T)


class Fusion(nn.Module):
    """One linear classifier over the modalities; each votes with its part, and all votes have equal weight."""

    def __init__(
        self, *, modalities: tuple[Modality, ...], hidden_dim: int, classes: int, vote: Vote, bias: bool = True
    ) -> None:
        super().__init__()
        self.modalities = modalities
        self.vote = vote
        self.classes = classes
        self.classifier = nn.Linear(hidden_dim * len(modalities), classes, bias=bias)

    def forward(self, features: Mapping[Modality, Tensor], present: Present) -> Tensor:
        """Return each modality's vote, ``(M, N, C)``; see ``fuse`` for their weighted sum.

        Args:
            features: By modality, ``(N, H)``.
            present: By modality, ``(N,)`` bool: an absent modality votes zero. None: all vote.
        """
        return torch.stack([_masked(self.vote(features[m], part), present[m]) for m, part in self.parts().items()])

    def predict(self, features: Mapping[Modality, Tensor], present: Present, layout: Layout) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Return each modality's vote, ``(M, N, C)``, and the fused logits, ``(N, C)``."""
        votes = self(features, present)
        return votes, self.fuse(votes)

    def alone(self, features: Mapping[Modality, Tensor], layout: Layout, *, train_head: bool) -> Tensor:  # noqa: ARG002
        """Return votes of features that no other modality has influenced, ``(M, N, C)``.

        Args:
            features: By modality, ``(N, H)``.
            layout: The rows of each dialogue.
            train_head: Whether the classifier gets a gradient.
        """
        parts = self.parts()
        return torch.stack([self.vote(x, parts[m] if train_head else parts[m].detach()) for m, x in features.items()])

    def weigh_votes(self, votes: Tensor) -> Tensor:
        """Return votes ``(M, N, C)`` multiplied by their modality's weight, whose sum is 1 if a vote is a number."""
        return _averaged(votes, torch.ones_like(votes)) if self.classes == 1 else votes

    def fuse(self, votes: Tensor) -> Tensor:
        """Return the fused logits, ``(N, C)``, of the votes."""
        fused = self.weigh_votes(votes).sum(dim=0)
        return fused if self.classifier.bias is None else fused + self.classifier.bias

    def unimodal(self, features: Mapping[Modality, Tensor]) -> Tensor:
        """Return each modality's own logits, ``(M, N, C)``: its part of the classifier, un-normalised, bias / M."""
        alone = torch.stack([features[m] @ part.T for m, part in self.parts().items()])
        return alone if self.classifier.bias is None else alone + self.classifier.bias / len(self.modalities)

    def parts(self) -> dict[Modality, Tensor]:
        """Return the classifier's columns by modality, ``(C, H)``."""
        parts = self.classifier.weight.chunk(len(self.modalities), dim=1)
        return dict(zip(self.modalities, parts, strict=True))


class SkillFusion(Fusion):
    """A fusion that weights votes by how well each modality predicts held-out dialogues."""

    weights: Tensor  # (M,)

    def __init__(
        self, *, modalities: tuple[Modality, ...], hidden_dim: int, classes: int, vote: Vote, bias: bool = True
    ) -> None:
        super().__init__(modalities=modalities, hidden_dim=hidden_dim, classes=classes, vote=vote, bias=bias)
        self.register_buffer("weights", torch.ones(len(modalities)))

    def weigh(self, skills: Mapping[Modality, float], classes: int) -> None:
        """Set the weights of the votes by skill; the best modality's weight is 1.

        A vote that is right with probability p is weighted by its log-odds against chance (Nitzan and Paroush 1982: the
        optimal weights of independent voters; for C classes, Zhu et al. 2009, equation 2), but by at least a tenth of
        the best weight.

        Args:
            skills: By modality, a score in 0..1 on data that the scorer was not fitted to.
            classes: Number of classes that were scored.
        """
        odds = [_log_odds(skills[m], classes) for m in self.modalities]
        best = max(odds)
        shares = [max(x / best, _LEAST) if best > 0 else 1.0 for x in odds]
        self.weights.copy_(torch.tensor(shares))

    def weigh_votes(self, votes: Tensor) -> Tensor:
        """See ``Fusion``."""
        weights = self.weights[:, None, None]
        return _averaged(votes, weights.expand_as(votes)) if self.classes == 1 else votes * weights


def _masked(vote: Tensor, present: Tensor | None) -> Tensor:
    return vote if present is None else vote * present[:, None]


def _averaged(votes: Tensor, weights: Tensor) -> Tensor:
    """Return the parts of the weighted mean of votes; one that is exactly 0 is of an absent modality."""
    shares = weights * (votes != 0)
    return votes * (shares / shares.sum(dim=0).clamp_min(1e-12))


def _log_odds(skill: float, classes: int) -> float:
    right = min(max(skill, 1e-3), 1 - 1e-3)
    return math.log((classes - 1) * right / (1 - right))
