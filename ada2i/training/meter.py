"""What an epoch's steps measured, summed as they go, so that an epoch that is cut short goes on with the same sums.

Shape letters in this file:
    M modalities
"""

import torch
from torch import Tensor

from ada2i.checkpoint import EpochPart
from ada2i.training.step import StepReport

# Fields of a step's report, with their lengths where that is not M.
_FIELDS = {
    "losses": 3,
    "loss": 1,
    "gradient_norm": 1,
    "encoder_norms": 0,
    "ratio": 0,
    "coefficient": 0,
    "gate_share": 0,
}


class EpochMeter:
    """Sums of an epoch's step reports, in double precision; they stay on the device until someone reads them."""

    def __init__(self, begun: EpochPart, *, modalities: int, device: torch.device) -> None:
        self.steps = begun.steps
        self.sizes = [size or modalities for size in _FIELDS.values()]
        sums = begun.sums or [0.0] * sum(self.sizes)
        self.sums = torch.tensor(sums, dtype=torch.float64, device=device)

    def add(self, report: StepReport) -> None:
        """Count one step."""
        values: list[Tensor] = [getattr(report, name).detach().reshape(-1).double() for name in _FIELDS]
        self.sums += torch.cat(values)
        self.steps += 1

    def part(self, seconds: float) -> EpochPart:
        """Return what to go on from, after some seconds of the epoch."""
        return EpochPart(steps=self.steps, sums=tuple(self.sums.tolist()), seconds=seconds)

    def means(self) -> dict[str, list[float]]:
        """Return, by the report's field, the means over the epoch's steps."""
        means = torch.split(self.sums / self.steps, self.sizes)
        return dict(zip(_FIELDS, [mean.tolist() for mean in means], strict=True))
