"""Adaptive modality weighting (paper, section 3.4): each modality votes by its feature's direction, not its length.

Shape letters in this file:
    N utterances     M modalities     H hidden width     C classes
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ada2i.batch import Layout
from ada2i.modalities import Modality

_LEAST = 0.1  # minimum weight, relative to the best modality's: a weak modality still learns
_LEAST_NORM = 1e-12  # as in torch's F.normalize

Vote = Callable[[Tensor, Tensor], Tensor]  # from features (M, N, H) and the classifier's parts (M, C, H), (M, N, C)


def linear_vote(features: Tensor, parts: Tensor) -> Tensor:
    """Vote by a plain linear classifier (an ablation)."""
    return torch.bmm(features, parts.transpose(1, 2))


@dataclass(frozen=True)
class CosineVote:
    """Vote by the direction of the feature.

    Attributes:
        dim: Axis of a part over which the classifier is normalised. 1, the width: cosines (paper). 0, the classes
            (released code): nearly cosines, times a factor of about sqrt(H / C).
        scale: Factor of the vote.
    """

    dim: int
    scale: float = 1.0

    def __call__(self, features: Tensor, parts: Tensor) -> Tensor:
        """See ``Vote``."""
        directions = unit(parts, self.dim + 1)
        scaled = directions if self.scale == 1.0 else directions * self.scale
        return torch.bmm(unit(features, 2), scaled.transpose(1, 2))


class _Unit(torch.autograd.Function):
    """Vectors over their length, with a third of the operators of ``F.normalize`` and its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int) -> Tensor:
        norms = torch.linalg.vector_norm(x, dim=dim, keepdim=True).clamp_min(_LEAST_NORM)
        directions: Tensor = x / norms
        ctx.save_for_backward(directions, norms)
        ctx.dim = dim
        return directions

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        directions, norms = ctx.saved_tensors
        along = (gradient * directions).sum(ctx.dim, keepdim=True)
        across = torch.addcmul(gradient, directions, along, value=-1)
        return across / norms, None


def unit(x: Tensor, dim: int) -> Tensor:
    """Return vectors of length 1 along an axis; zeros stay zeros."""
    directions: Tensor = _Unit.apply(x, dim)  # type: ignore[no-untyped-call]
    return directions


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

    def forward(self, features: Tensor, present: Tensor | None) -> Tensor:
        """Return each modality's vote, ``(M, N, C)``; see ``fuse`` for their weighted sum.

        Args:
            features: ``(M, N, H)``.
            present: ``(M, N)`` bool: an absent modality votes zero. None: all vote.
        """
        votes = self.vote(features, self.parts())
        return votes if present is None else votes * present[..., None]

    def predict(self, features: Tensor, present: Tensor | None, layout: Layout) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Return each modality's vote, ``(M, N, C)``, and the fused logits, ``(N, C)``."""
        votes = self(features, present)
        return votes, self.fuse(votes)

    def alone(self, features: Tensor, layout: Layout, *, train_head: bool) -> Tensor:  # noqa: ARG002
        """Return votes of features that no other modality has influenced, ``(M, N, C)``.

        Args:
            features: ``(M, N, H)``.
            layout: The rows of each dialogue.
            train_head: Whether the classifier gets a gradient.
        """
        return self.vote(features, self.parts() if train_head else self.parts().detach())

    def weigh_votes(self, votes: Tensor) -> Tensor:
        """Return votes ``(M, N, C)`` multiplied by their modality's weight, whose sum is 1 if a vote is a number."""
        return _averaged(votes, torch.ones_like(votes)) if self.classes == 1 else votes

    def fuse(self, votes: Tensor) -> Tensor:
        """Return the fused logits, ``(N, C)``, of the votes."""
        fused = self.weigh_votes(votes).sum(dim=0)
        return fused if self.classifier.bias is None else fused + self.classifier.bias

    def unimodal(self, features: Tensor) -> Tensor:
        """Return each modality's own logits, ``(M, N, C)``: its part of the classifier, un-normalised, bias / M."""
        alone = torch.bmm(features, self.parts().transpose(1, 2))
        return alone if self.classifier.bias is None else alone + self.classifier.bias / len(self.modalities)

    def parts(self) -> Tensor:
        """Return the classifier's columns of each modality, ``(M, C, H)``."""
        return torch.unflatten(self.classifier.weight, 1, (len(self.modalities), -1)).transpose(0, 1)


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


def _averaged(votes: Tensor, weights: Tensor) -> Tensor:
    """Return the parts of the weighted mean of votes; one that is exactly 0 is of an absent modality."""
    shares = weights * (votes != 0)
    return votes * (shares / shares.sum(dim=0).clamp_min(1e-12))


def _log_odds(skill: float, classes: int) -> float:
    right = min(max(skill, 1e-3), 1 - 1e-3)
    return math.log((classes - 1) * right / (1 - right))
