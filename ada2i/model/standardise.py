"""Features by mean and deviation of the train split, stored with the model.

Shape letters in this file:
    N utterances     D width of a modality's features
"""

import torch
from torch import Tensor, nn


class Standardise(nn.Module):
    """Subtract the mean and divide by the deviation; both are buffers, so they travel with the weights."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))

    def set(self, mean: Tensor, deviation: Tensor) -> None:
        """Take ``(D,)`` statistics; constant features, of deviation zero, are only centred."""
        self.mean.copy_(mean)
        self.deviation.copy_(torch.where(deviation > 0, deviation, torch.ones_like(deviation)))

    def forward(self, features: Tensor, present: Tensor) -> Tensor:
        """Map ``(N, D)`` to ``(N, D)``; rows that are not ``present`` stay zero."""
        scaled = (features - self.mean) / self.deviation
        return scaled * present[:, None]
