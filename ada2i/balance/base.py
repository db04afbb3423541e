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
    """Factors of a step for each encoder, ``(M,)`` each, and metrics to record.

    Attributes:
        gradient: Factor of the clipped gradient. None: 1.
        update: Factor of the optimizer's step. None: 1.
        gradient_noise: Factor of Gaussian noise on the gradient; the noise has each gradient's standard deviation.
            None: no noise.
        update_noise: Factor of Gaussian noise on the weights after the step, whose standard deviation is that of the
            clipped gradient times the learning rate. None: no noise.
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
        """Return a batch's statistics for ``scales``, by name; they are summed over parts of a step and over ranks."""

    def extra_losses(self, prediction: Prediction, batch: DialogueBatch) -> dict[str, Tensor]:
        """Return additional loss terms, by metric name: scalars, this rank's shares of the global mean."""

    def scales(self, statistics: Mapping[str, Tensor]) -> StepScales:
        """Return the factors of a step, from the statistics of the global batch."""

    def state(self) -> dict[str, Tensor]:
        """Return the state that a checkpoint needs for an exact resume, in addition to model and optimizer."""

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore a state that ``state`` returned; it is empty if the checkpoint is older than the method's state."""
