"""The part of a step's results that the host needs, copied from the device while it computes the next step.

Shape letters in this file:
    W ranks
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from ada2i.errors import DivergenceError


@dataclass(frozen=True)
class StepKey:
    """A step of a seed; with the rank, the key of all its randomness. Steps are counted from 0 over the whole run."""

    seed: int
    step: int


@dataclass(frozen=True)
class StepStatus:
    """A step's flags, equal on all ranks, so that either all ranks stop or none does.

    Attributes:
        key: The step.
        values: ``(W + 2,)`` on the host: 1 for each rank with a non-finite loss, the number of ranks that must leave,
            and 1 if the gradient is not finite.
        copied: The event to wait for before reading ``values``; None: they are complete.
    """

    key: StepKey
    values: Tensor
    copied: torch.cuda.Event | None

    @classmethod
    def of(cls, values: Tensor, key: StepKey) -> Self:
        """Return the status of ``(W + 2,)`` values, which may be on a GPU."""
        if not values.is_cuda:
            return cls(key, values, None)
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        host.copy_(values, non_blocking=True)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record()
        return cls(key, host, copied)

    @property
    def leaving(self) -> bool:
        """Whether a rank must leave; waits for this step, but not for later ones."""
        return bool(self._read()[-2])

    @property
    def finite(self) -> bool:
        """Whether losses and gradient are finite; waits like ``leaving``."""
        values = self._read()
        return not (values[:-2].any() or values[-1])

    def check(self) -> None:
        """Check that the step was finite; waits like ``leaving``.

        Raises:
            DivergenceError: A loss or gradient is not finite; the message names step and ranks.
        """
        if self.finite:
            return
        ranks = [str(rank) for rank in self._read()[:-2].nonzero().flatten().tolist()]
        what = f"The loss of rank {', '.join(ranks)}" if ranks else "The averaged gradient"
        raise DivergenceError(
            f"{what} is not finite at step {self.key.step} of seed {self.key.seed}; the optimizer step was skipped. "
            "Lower `training.learning_rate`, or check the features of the named dialogues.",
            seed=self.key.seed,
            step=self.key.step,
            ranks=ranks,
        )

    def _read(self) -> Tensor:
        if self.copied is not None:
            self.copied.synchronize()
        return self.values
