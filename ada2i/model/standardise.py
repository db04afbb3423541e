"""Features by mean and deviation of the train split, stored with the model.

Shape letters in this file:
    N utterances     D width of a modality's features
"""

import torch
from torch import Tensor, nn

from ada2i.batch import Layout

_PRIOR = 5.0  # utterances that the statistics of train count for beside a speaker's own


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


def standardise_by_speaker(features: Tensor, present: Tensor, layout: Layout, speakers: Tensor) -> Tensor:
    """Standardise features that are standard over train by each speaker's own statistics in the dialogue.

    Who speaks little is drawn to the statistics of train, mean 0 and deviation 1, so that one utterance alone keeps
    most of what it says.

    Args:
        features: ``(N, D)``, zeros where not present.
        present: ``(N,)`` bool.
        layout: Which rows belong to which dialogue.
        speakers: ``(N,)`` int64, numbered within each dialogue.

    Returns:
        ``(N, D)``; rows that are not ``present`` stay zero.
    """
    group = layout.dialogue * layout.padded_length + speakers  # no more speakers than utterances
    same = (group[:, None] == group[None, :]).to(features.dtype) * present[None, :]  # (N, N)
    number = same.sum(dim=1)[:, None] + _PRIOR
    centred = (features - same @ features / number) * present[:, None]
    deviation = ((same @ centred.square() + _PRIOR) / number).sqrt()
    return centred / deviation
