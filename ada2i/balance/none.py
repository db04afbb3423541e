"""No balancing: the disparity ratio is measured and recorded, and nothing is changed."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ada2i.balance.base import StepInfo, StepScales
from ada2i.balance.disparity import counted, disparity_ratio, true_class_scores
from ada2i.batch import DialogueBatch
from ada2i.config import BalanceConfig
from ada2i.model.ada2i import Prediction
from ada2i.model.afw import Features, Present


class NoBalancer:
    """Measures the disparity ratio; balancing methods may extend it.

    Attributes:
        held: The state, on the model's device from the first step on.
        epoch: The current epoch.
        info: Of the current step.
    """

    def __init__(self, config: BalanceConfig) -> None:
        self.config = config
        self.held: dict[str, Tensor] = {}
        self.epoch = 0
        self.info: StepInfo

    def set_epoch(self, epoch: int) -> None:
        """See ``Balancer``."""
        self.epoch = epoch

    def start_step(self, info: StepInfo) -> None:
        """See ``Balancer``."""
        self.info = info
        device = next(info.model.parameters()).device
        self.held = {name: tensor.to(device) for name, tensor in self.held.items()}

    def adapt(
        self,
        encoded: Features,
        batch: DialogueBatch,  # noqa: ARG002
        present: Present,
    ) -> tuple[Features, Present]:
        """See ``Balancer``."""
        return encoded, present

    def totals(self, batch: DialogueBatch, forward: Callable[[], Prediction]) -> dict[str, Tensor]:  # noqa: ARG002
        """See ``Balancer``."""
        return {}

    def row_weights(self, prediction: Prediction, batch: DialogueBatch) -> Tensor | None:  # noqa: ARG002
        """See ``Balancer``."""
        return None

    def extra_losses(
        self,
        prediction: Prediction,  # noqa: ARG002
        batch: DialogueBatch,  # noqa: ARG002
        totals: Mapping[str, Tensor],  # noqa: ARG002
    ) -> dict[str, Tensor]:
        """See ``Balancer``."""
        return {}

    def encoder_loss(
        self,
        prediction: Prediction,  # noqa: ARG002
        batch: DialogueBatch,  # noqa: ARG002
        totals: Mapping[str, Tensor],  # noqa: ARG002
    ) -> Tensor | None:
        """See ``Balancer``."""
        return None

    def statistics(self, prediction: Prediction, batch: DialogueBatch) -> dict[str, Tensor]:
        """See ``Balancer``."""
        alone, present = prediction.unimodal_logits, prediction.present
        if batch.targets is not None:
            return _closeness(alone[..., 0], present, batch)
        scores = true_class_scores(alone, batch.labels, present)
        return {"scores": scores, "counts": counted(batch.labels, present, len(alone))}

    def blend(self, gradients: Sequence[Tensor], others: Sequence[Tensor]) -> None:
        """See ``Balancer``."""

    def scales(self, statistics: Mapping[str, Tensor]) -> StepScales:
        """See ``Balancer``."""
        ratio = disparity_ratio(statistics["scores"], statistics["counts"])
        return StepScales(metrics={"ratio": ratio, "coefficient": torch.ones_like(ratio)})

    def state(self) -> dict[str, Tensor]:
        """See ``Balancer``."""
        return self.held

    def load(self, state: Mapping[str, Tensor]) -> None:
        """See ``Balancer``."""
        self.held = dict(state)

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
