"""No balancing: the disparity ratio is measured and recorded, and nothing is changed."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ada2i.balance.base import StepScales
from ada2i.balance.disparity import counted, disparity_ratio, true_class_scores
from ada2i.batch import DialogueBatch
from ada2i.config import BalanceConfig
from ada2i.model.ada2i import Prediction


class NoBalancer:
    """Measures the disparity ratio; balancing methods may extend it."""

    def __init__(self, config: BalanceConfig) -> None:
        self.config = config

    def set_epoch(self, epoch: int) -> None:
        """See ``Balancer``."""

    def statistics(self, prediction: Prediction, batch: DialogueBatch) -> dict[str, Tensor]:
        """See ``Balancer``."""
        alone, present = prediction.unimodal_logits, prediction.present
        scores = true_class_scores(alone, batch.labels, present)
        return {"scores": scores, "counts": counted(batch.labels, present, len(alone))}

    def extra_losses(self, prediction: Prediction, batch: DialogueBatch) -> dict[str, Tensor]:  # noqa: ARG002
        """See ``Balancer``."""
        return {}

    def scales(self, statistics: Mapping[str, Tensor]) -> StepScales:
        """See ``Balancer``."""
        ratio = disparity_ratio(statistics["scores"], statistics["counts"])
        return StepScales(metrics={"ratio": ratio, "coefficient": torch.ones_like(ratio)})

    def state(self) -> dict[str, Tensor]:
        """See ``Balancer``."""
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """See ``Balancer``."""
