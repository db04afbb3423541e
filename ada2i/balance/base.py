"""The interface between training and a method that balances modalities.

Shape letters in this file:
    N utterances     M modalities, in the model's order     P parameters of an encoder
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from ada2i.batch import DialogueBatch
from ada2i.config import BalanceConfig
from ada2i.model.ada2i import Ada2I, Prediction
from ada2i.model.afw import Features, Present


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


class StepInfo(NamedTuple):
    """What a method may read in a step.

    Attributes:
        model: The model, whose parameters are those at the start of the step.
        seed: The run's seed.
        step: Number of the step over the whole run.
        class_weights: ``(C,)`` weights of the cross-entropies; None: all 1.
    """

    model: Ada2I
    seed: int
    step: int
    class_weights: Tensor | None = None


class Balancer(ABC):
    """A method; all its results that are not a rank's share are equal on all ranks, to the last bit.

    The calls of an epoch and of a step are in the order of the methods below. Methods that are not abstract only
    keep the state and facts of the step; a subclass with its own ``__init__`` calls ``super().__init__(config)``.

    Attributes:
        config: The method's config.
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
        """Prepare for the steps of an epoch, counted from 1; a resumed epoch is prepared again."""
        self.epoch = epoch

    def start_step(self, info: StepInfo) -> None:
        """Prepare for the calls of a step."""
        self.info = info
        device = next(info.model.parameters()).device
        self.held = {name: tensor.to(device) for name, tensor in self.held.items()}

    def adapt(self, encoded: Features, batch: DialogueBatch, present: Present) -> tuple[Features, Present]:
        """Return what feature weighting and votes read in place of the encoders' outputs and their presence."""
        return encoded, present

    def totals(self, batch: DialogueBatch, forward: Callable[[], Prediction]) -> dict[str, Tensor]:
        """Return sums that the losses need, by name; they are summed over the parts of a step and over ranks first.

        Args:
            batch: A part of the step.
            forward: Returns its prediction. If there are several parts, this costs another forward pass.
        """
        return {}

    def row_weights(self, prediction: Prediction, batch: DialogueBatch) -> Tensor | None:
        """Return the weight of each utterance in the cross-entropies of the prediction, ``(N,)``; None: all 1."""
        return None

    def extra_losses(
        self, prediction: Prediction, batch: DialogueBatch, totals: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return additional loss terms, by metric name: scalars, this rank's shares of the global mean."""
        return {}

    def encoder_loss(self, prediction: Prediction, batch: DialogueBatch, totals: Mapping[str, Tensor]) -> Tensor | None:
        """Return a scalar, as above, whose gradient on the encoders is computed separately for ``blend``; or None."""
        return None

    @abstractmethod
    def statistics(self, prediction: Prediction, batch: DialogueBatch) -> dict[str, Tensor]:
        """Return a batch's statistics for ``scales``, by name; they are summed over parts of a step and over ranks."""

    def blend(self, gradients: Sequence[Tensor], others: Sequence[Tensor]) -> None:  # noqa: B027 - needs no override
        """Change an encoder's gradients, one for each of its ``P`` parameters, in place.

        Args:
            gradients: Of all loss terms.
            others: Of ``encoder_loss``.
        """

    @abstractmethod
    def scales(self, statistics: Mapping[str, Tensor]) -> StepScales:
        """Return the factors of a step, from the statistics of the global batch."""

    def state(self) -> dict[str, Tensor]:
        """Return the state that a checkpoint needs for an exact resume, in addition to model and optimizer."""
        return self.held

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore a state that ``state`` returned; it is empty if the checkpoint is older than the method's state."""
        self.held = dict(state)
