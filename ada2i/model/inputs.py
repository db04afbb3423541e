"""The first part of the network: how it reads the features of a modality.

Shape letters in this file:
    N utterances     D width of a modality's features
"""

from typing import Protocol

import torch
from torch import Tensor, nn


class InputNorm(Protocol):
    """Prepares features; implementations are modules."""

    def __call__(self, features: Tensor, present: Tensor) -> Tensor:
        """Map ``(N, D)`` to ``(N, D)``, given which utterances have the modality, ``(N,)`` bool."""


class KeepInputs(nn.Module):
    """Features as they are."""

    def forward(self, features: Tensor, present: Tensor) -> Tensor:  # noqa: ARG002
        """See ``InputNorm``."""
        return features


class MaskInputs(nn.Module):
    """Features as they are, and zeros for utterances that lack the modality."""

    def forward(self, features: Tensor, present: Tensor) -> Tensor:
        """See ``InputNorm``."""
        return features * present[:, None]


class Standardise(nn.Module):
    """Features less their mean over train, divided by their deviation; both travel with the weights, as buffers."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))

    def set(self, mean: Tensor, deviation: Tensor) -> None:
        """Set ``(D,)`` statistics; constant features, of deviation zero, are only centred."""
        self.mean.copy_(mean)
        self.deviation.copy_(torch.where(deviation > 0, deviation, torch.ones_like(deviation)))

    def forward(self, features: Tensor, present: Tensor) -> Tensor:
        """See ``InputNorm``; rows that are not ``present`` are zero."""
        scaled = (features - self.mean) / self.deviation
        return scaled * present[:, None]
