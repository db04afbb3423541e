"""One seed's training."""

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ada2i.config import TrainConfig
from ada2i.devices import memory_of
from ada2i.loader.resident import on_device
from ada2i.loader.split_data import SplitData
from ada2i.records import FeatureInfo
from ada2i.store import SeedFolder
from ada2i.training.losses import balanced_weights


class TeacherOutputs(NamedTuple):
    """Outputs of teachers on train, in its order.

    Attributes:
        probabilities: ``(N, C)`` float32, the mean over teachers.
        encodings: ``(N, M, H)`` float32, the output of each modality's teacher's encoder. None: they are not learned.
    """

    probabilities: Tensor
    encodings: Tensor | None


@dataclass(frozen=True)
class Task:
    """One seed's training: config, data, device, folder, and teachers' outputs on train."""

    config: TrainConfig
    features: FeatureInfo
    seed: int
    train: SplitData
    dev: SplitData
    uri: str  # the seed's folder
    device: torch.device
    teacher_outputs: TeacherOutputs | None = None

    @property
    def folder(self) -> SeedFolder:
        """The seed's folder."""
        return SeedFolder(self.uri)

    @cached_property
    def losses(self) -> dict[str, Any]:
        """The arguments of ``train_step`` that stay the same during training."""
        config = self.config
        return {
            "clip_norm": config.training.clip_norm,
            "weights": config.loss,
            "class_weights": self.class_weights,
        }

    @cached_property
    def train_edges(self) -> list[int]:
        """The first row of each dialogue of train, and the number of rows."""
        return [0, *accumulate(self.train.lengths.tolist())]

    @cached_property
    def near_train(self) -> SplitData:
        """Train, in the GPU's memory if it fits into its share of that."""
        return self._near(self.train)

    @cached_property
    def near_dev(self) -> SplitData:
        """Dev, in the GPU's memory if it fits into its share of that."""
        return self._near(self.dev)

    def _near(self, split: SplitData) -> SplitData:
        resources = self.config.resources
        limit = resources.gpu_data_share * (resources.gpus_per_worker or 1.0) * memory_of(self.device)
        return on_device(split, self.device, limit=limit) if limit else split

    @cached_property
    def class_weights(self) -> Tensor | None:
        """``(C,)`` weights of the cross-entropies, from the classes' shares of train; None: all 1."""
        if not self.config.loss.class_balance:
            return None
        return balanced_weights(torch.from_numpy(self.train.class_counts), self.config.loss.class_balance).to(
            self.device
        )
