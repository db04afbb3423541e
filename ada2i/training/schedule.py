"""The learning rate of each step: `cosine` by ``set_rate``, `plateau` by torch's scheduler on the dev loss."""

import math

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ada2i.config import TrainingConfig


def set_rate(optimizer: torch.optim.Optimizer, settings: TrainingConfig, *, step: int, steps: int) -> None:
    """Set the learning rate of a step of `cosine`: half a cosine to zero, times a linear warm-up in the first tenth."""
    if settings.schedule != "cosine":
        return
    rate = settings.learning_rate * min(1.0, (step + 1) / (0.1 * steps)) * 0.5 * (1 + math.cos(math.pi * step / steps))
    for group in optimizer.param_groups:
        group["lr"] = rate


def plateau_scheduler(optimizer: torch.optim.Optimizer, settings: TrainingConfig) -> ReduceLROnPlateau | None:
    """Return the scheduler of `plateau`, or None for another schedule."""
    if settings.schedule != "plateau":
        return None
    return ReduceLROnPlateau(optimizer, mode="min", factor=settings.plateau_factor, patience=settings.plateau_epochs)
