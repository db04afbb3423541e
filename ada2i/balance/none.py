"""No balancing: the disparity ratio is measured and recorded, and nothing is changed."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ada2i.balance.base import Balancer, StepScales
from ada2i.balance.disparity import counted, disparity_ratio, true_class_scores
from ada2i.batch import DialogueBatch
from ada2i.model.ada2i import Prediction


class NoBalancer(Balancer):
    """Measures the disparity ratio; balancing methods may extend it."""

    def statistics(self, prediction: Prediction, batch: DialogueBatch) -> dict[str, Tensor]:
        """See ``Balancer``."""
        alone, present = prediction.unimodal_logits, prediction.present
        if batch.targets is not None:
            return _closeness(alone[..., 0], present, batch)
        scores = true_class_scores(alone, batch.labels, present)
        return {"scores": scores, "counts": counted(batch.labels, present, len(alone))}

    def scales(self, statistics: Mapping[str, Tensor]) -> StepScales:
        """See ``Balancer``."""
        ratio = disparity_ratio(statistics["scores"], statistics["counts"])
        return StepScales(metrics={"ratio": ratio, "coefficient": torch.ones_like(ratio)})

    def modulated(
        self, statistics: Mapping[str, Tensor], coefficient: Tensor, acts_on: str, *, noise: bool = False
    ) -> StepScales:
        """Return scales with a factor ``(M,)`` of the encoders' gradients or updates, and noise on the same."""
        metrics = {**NoBalancer.scales(self, statistics).metrics, "coefficient": coefficient}
        added = torch.ones_like(coefficient) if noise else None
        if acts_on == "gradient":
            return StepScales(gradient=coefficient, gradient_noise=added, metrics=metrics)
        return StepScales(update=coefficient, update_noise=added, metrics=metrics)


def _closeness(values: Tensor, present: Tensor | None, batch: DialogueBatch) -> dict[str, Tensor]:
    """Return statistics of regression: as for classes, the score is exp(-loss), here of the L1 loss of ``(M, N)``."""
    known = batch.known.expand_as(values) if present is None else batch.known & present
    scores = torch.where(known, torch.exp(-batch.distances(values)), 0.0)
    return {"scores": scores.sum(dim=1), "counts": known.sum(dim=1).float()}
