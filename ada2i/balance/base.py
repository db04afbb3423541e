"""The interface between training and a method that balances modalities.

Shape letters in this file:
    M modalities, in the model's order
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from torch import Tensor

from ada2i.batch import DialogueBatch
from ada2i.model.ada2i import Prediction


class StepScales(NamedTuple):
    """Factors of a step for each encoder, ``(M,)`` each, and what to record of them.

    Attributes:
        gradient: Of the clipped gradient. None: 1.
        update: Of the optimizer's step. None: 1.
        gradient_noise: Of Gaussian noise on the gradient, whose deviation is each gradient's own. None: no noise.
        update_noise: Of Gaussian noise on the weights after the step, whose deviation is that of the clipped gradient
            times the learning rate. None: no noise.
        metrics: By name (``training.metrics``), scalars or ``(M,)``.
    """

    gradient: Tensor | None = None
    update: Tensor | None = None
    gradient_noise: Tensor | None = None
    update_noise: Tensor | None = None
    metrics: Mapping[str, Tensor] = {}


class Balancer(Protocol):
    """A method; all its results are equal on all ranks, to the last bit."""

    def set_epoch(self, epoch: int) -> None:
        """Prepare for the steps of an epoch, counted from 1."""

    def statistics(self, prediction: Prediction, batch: DialogueBatch) -> dict[str, Tensor]:
        """Return what ``scales`` needs of a batch, by name; it is summed over the parts of a step and over ranks."""

    def extra_losses(self, prediction: Prediction, batch: DialogueBatch) -> dict[str, Tensor]:
        """Return terms that are added to the loss, by metric name: scalars, this rank's shares of the global mean."""

    def scales(self, statistics: Mapping[str, Tensor]) -> StepScales:
        """Return the factors of a step, from the statistics of the global batch."""

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint must hold for an exact resume, in addition to model and optimizer."""

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore what ``state`` returned; empty if the checkpoint is older than the method's state."""
