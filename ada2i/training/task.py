"""One seed's training as it is asked for, and whoever is told how it goes."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from ada2i import storage
from ada2i.config import TrainConfig
from ada2i.loader.split_data import SplitData
from ada2i.records import EpochRecord, FeatureInfo
from ada2i.training.losses import balanced_weights


class Reporter(Protocol):
    """Whoever wants to know how training goes."""

    def first_step(self) -> None:
        """The first optimizer step of this call is done, resumed or not."""

    def epoch(self, seed: int, record: EpochRecord) -> None:
        """An epoch is done; its checkpoint may be still to come."""


class QuietReporter:
    """A reporter for trainings of which many run at once."""

    def first_step(self) -> None:
        """Say nothing."""

    def epoch(self, seed: int, record: EpochRecord) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class Task:
    """One seed's training: what to fit, on what, and where it is kept."""

    config: TrainConfig
    features: FeatureInfo
    seed: int
    train: SplitData
    dev: SplitData
    uri: str  # the seed's folder
    device: torch.device

    @property
    def checkpoints(self) -> str:
        """URI of the folder with this seed's checkpoints."""
        return storage.join(self.uri, "checkpoints")

    @property
    def best(self) -> str:
        """URI of the folder with the weights of this seed's best epoch."""
        return storage.join(self.uri, "best")

    @cached_property
    def class_weights(self) -> Tensor | None:
        """``(C,)`` weights of the cross-entropies, by the classes' shares of train; None: all 1."""
        if not self.config.loss.class_balance:
            return None
        return balanced_weights(torch.from_numpy(self.train.class_counts), self.config.loss.class_balance).to(
            self.device
        )
