"""ARL: imbalance on purpose, by the modalities' confidence and contribution (ICCV 2025, arXiv 2507.10203).

Shape letters in this file:
    N utterances     M modalities     C classes
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ada2i.balance.base import StepScales
from ada2i.balance.disparity import counting
from ada2i.balance.unimodal import UnimodalBalancer
from ada2i.batch import DialogueBatch
from ada2i.config import ArlBalance
from ada2i.model.ada2i import Prediction

_FLOOR = 0.6  # least share of the entropy, times 1 / K of K modalities: 0.3 for two, as in the released code


class ArlBalancer(UnimodalBalancer):
    """Modulates by 1 + w_m, and adds the modalities' own cross-entropies; it has no state."""

    config: ArlBalance

    def statistics(self, prediction: Prediction, batch: DialogueBatch) -> dict[str, Tensor]:
        """See ``Balancer``."""
        logs = prediction.unimodal_logits.log_softmax(dim=-1)
        rows = counting(batch.labels, prediction.present)
        spread = torch.where(rows, -(logs.exp() * logs).sum(dim=-1), 0.0).sum(dim=1)
        size = torch.where(rows, prediction.votes.abs().mean(dim=-1), 0.0).sum(dim=1)
        return {**super().statistics(prediction, batch), "spread": spread, "size": size}

    def scales(self, statistics: Mapping[str, Tensor]) -> StepScales:
        """See ``Balancer``."""
        if not self.config.strength or self.epoch < self.config.start_epoch:
            return super().scales(statistics)
        counts = statistics["counts"]
        weights = weigh(
            statistics["spread"] / counts.clamp_min(1),
            statistics["size"] / counts.clamp_min(1),
            counts > 0,
            temperature=self.config.temperature,
        )
        return self.modulated(statistics, 1 + self.config.strength * weights, self.config.acts_on)


def weigh(spread: Tensor, size: Tensor, there: Tensor, *, temperature: float) -> Tensor:
    """Return w_m, ``(M,)``: large for a modality whose votes are confident and small; 0 for an absent one.

    Args:
        spread: ``(M,)`` mean entropy of the votes.
        size: ``(M,)`` mean absolute vote.
        there: ``(M,)`` bool, the modalities that are compared.
        temperature: Factor of the softmax's inputs.
    """
    number = there.sum().clamp_min(1)
    entropy = _shares(spread, there).clamp_min(_FLOOR / number)
    confidence = _shares(1 / entropy, there)
    inputs = temperature * confidence * (1 - _shares(size, there))
    return torch.where(there, inputs, -torch.inf).softmax(dim=0).nan_to_num(0.0)


def _shares(values: Tensor, there: Tensor) -> Tensor:
    kept = values * there
    return kept / kept.sum().clamp_min(1e-12)
