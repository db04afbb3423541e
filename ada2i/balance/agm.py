"""AGM: adaptive gradient modulation by each modality's own cross-entropy (Li et al., ICCV 2023).

Votes are additive, and an absent modality votes zero, so a modality's Shapley value is its vote, and the forward passes
with modalities left out are not needed.

Shape letters in this file:
    M modalities
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ada2i.balance.base import StepScales
from ada2i.balance.disparity import counting
from ada2i.balance.none import NoBalancer
from ada2i.balance.votes import entropies
from ada2i.batch import DialogueBatch
from ada2i.config import AgmBalance
from ada2i.model.ada2i import Prediction

_LARGEST = 18.4207  # nats: the released code bounds probabilities by 1e-8


class AgmBalancer(NoBalancer):
    """Modulates by the current ratio relative to that of the running means of earlier steps, which are its state."""

    config: AgmBalance

    def statistics(self, prediction: Prediction, batch: DialogueBatch) -> dict[str, Tensor]:
        """See ``Balancer``."""
        found = entropies(prediction.unimodal_logits, batch).clamp_max(_LARGEST)
        sums = torch.where(counting(batch.labels, prediction.present), found, 0.0).sum(dim=1)
        return {**super().statistics(prediction, batch), "entropies": sums}

    def scales(self, statistics: Mapping[str, Tensor]) -> StepScales:
        """See ``Balancer``."""
        counts = statistics["counts"]
        there = (counts > 0).float()
        now = statistics["entropies"] / counts.clamp_min(1)
        before = self.held.get("means", torch.zeros_like(now))
        steps = self.held.get("steps", torch.zeros_like(now))
        comparable = there * (steps > 0)
        difference = ratios(before, comparable) - ratios(now, comparable)
        factor = (self.config.alpha * difference).exp().clamp_max(self.config.largest)
        coefficient = torch.where(comparable > 0, factor, 1.0)
        self.held = {
            "means": before + there * (now - before) / (steps + there).clamp_min(1),
            "steps": steps + there,
        }
        if self.epoch < self.config.start_epoch:
            return super().scales(statistics)
        return self.modulated(statistics, coefficient, self.config.acts_on)


def ratios(means: Tensor, there: Tensor) -> Tensor:
    """Return r_m, ``(M,)``: exp of K / (K - 1) times how far a cross-entropy is below the mean of all K.

    Args:
        means: ``(M,)`` cross-entropies.
        there: ``(M,)`` 1 for the K modalities that are compared, else 0.
    """
    number = there.sum()
    mean = (means * there).sum() / number.clamp_min(1)
    return (number / (number - 1).clamp_min(1) * (mean - means)).exp()
