"""Auxiliary unimodal losses: each modality's vote has a cross-entropy of its own.

Shape letters in this file:
    N utterances     M modalities     C classes
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ada2i.balance.none import NoBalancer
from ada2i.balance.votes import entropies, voters
from ada2i.batch import DialogueBatch
from ada2i.config import ArlBalance, DglBalance, MmParetoBalance, UnimodalBalance
from ada2i.model.ada2i import Prediction


class UnimodalBalancer(NoBalancer):
    """Adds the modalities' cross-entropies, each a mean over the labelled utterances that have it; it has no state."""

    config: UnimodalBalance | DglBalance | MmParetoBalance | ArlBalance

    def totals(self, batch: DialogueBatch, forward: Callable[[], Prediction]) -> dict[str, Tensor]:
        """See ``Balancer``."""
        return {"voters": voters(self.info.model, batch).sum(dim=1)} if self.config.weight else {}

    def extra_losses(
        self, prediction: Prediction, batch: DialogueBatch, totals: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """See ``Balancer``."""
        if not self.config.weight:
            return {}
        return {"unimodal_loss": self.own_loss(self.votes(prediction, batch), batch, totals)}

    def votes(self, prediction: Prediction, batch: DialogueBatch) -> Tensor:
        """Return the votes that the losses judge, ``(M, N, C)``."""
        return prediction.votes

    def own_loss(self, votes: Tensor, batch: DialogueBatch, totals: Mapping[str, Tensor]) -> Tensor:
        """Return this rank's share of the sum over modalities of each one's mean cross-entropy, weighted."""
        counting = voters(self.info.model, batch)
        found = entropies(votes, batch, self.info.class_weights)
        sums = torch.where(counting, found, 0.0).sum(dim=1)
        return self.config.weight * (sums / totals["voters"].clamp_min(1).to(sums.dtype)).sum()
