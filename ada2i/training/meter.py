"""Sums of an epoch's metrics, so that an epoch that is interrupted continues with the same sums."""

import time
from collections.abc import Mapping

import torch
from torch import Tensor

from ada2i.checkpoint import EpochPart


class EpochMeter:
    """Clock and sums of the metrics of an epoch, in double precision; sums stay on the device until they are read.

    In an epoch that a checkpoint interrupted, only metrics that were measured from its first step on are summed.

    Args:
        begun: The steps of the epoch that are already done.
    """

    def __init__(self, begun: EpochPart) -> None:
        self.steps = begun.steps
        self._started = time.perf_counter() - begun.seconds
        self._sizes = {name: len(values) for name, values in begun.sums.items()}
        self._sums = torch.tensor([x for values in begun.sums.values() for x in values], dtype=torch.float64)

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """Count one step."""
        if self.steps == 0:
            self._sizes = {name: value.numel() for name, value in metrics.items()}
            self._sums = torch.zeros(sum(self._sizes.values()), dtype=torch.float64)
        values = torch.cat([metrics[name].detach().reshape(-1) for name in self._sizes])
        self._sums = self._sums.to(values.device) + values.double()
        self.steps += 1

    def part(self) -> EpochPart:
        """Return what a checkpoint keeps of the epoch so far."""
        seconds = time.perf_counter() - self._started
        return EpochPart(steps=self.steps, sums=self._by_name(self._sums), seconds=seconds)

    def means(self) -> dict[str, list[float]]:
        """Return the means over the epoch's steps, by name."""
        return self._by_name(self._sums / self.steps)

    def _by_name(self, values: Tensor) -> dict[str, list[float]]:
        parts = torch.split(values, list(self._sizes.values()))
        return {name: part.tolist() for name, part in zip(self._sizes, parts, strict=True)}
