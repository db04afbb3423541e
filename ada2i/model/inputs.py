"""The first stage of the network: preparation of a modality's features.

Shape letters in this file:
    N utterances     D width of a modality's features
"""

import torch
from torch import Tensor, nn


class KeepInputs(nn.Module):
    """Leaves features unchanged."""

    def forward(self, features: Tensor, present: Tensor) -> Tensor:  # noqa: ARG002
        """Map ``(N, D)`` to ``(N, D)``, given which utterances have the modality, ``(N,)`` bool."""
        return features


class MaskInputs(nn.Module):
    """Leaves features unchanged, with zeros for utterances that lack the modality."""

    def forward(self, features: Tensor, present: Tensor) -> Tensor:
        """Map ``(N, D)`` to ``(N, D)``, given which utterances have the modality, ``(N,)`` bool."""
        return features * present[:, None]


class Standardise(nn.Module):
    """Standardises features by their mean and deviation over train; both are stored with the weights, as buffers."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))

    def set(self, mean: Tensor, deviation: Tensor) -> None:
        """Set ``(D,)`` statistics; constant features, with deviation zero, are only centred."""
        self.mean.copy_(mean)
        self.deviation.copy_(torch.where(deviation > 0, deviation, torch.ones_like(deviation)))

    def forward(self, features: Tensor, present: Tensor) -> Tensor:
        """Map ``(N, D)`` to ``(N, D)``; rows of utterances that are not ``present``, ``(N,)`` bool, are zero."""
        scaled = (features - self.mean) / self.deviation
        return scaled * present[:, None]
