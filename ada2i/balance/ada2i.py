"""Ada2I's method: encoders ahead of the weakest one learn more slowly, and all get noise (paper, section 3.5)."""

from collections.abc import Mapping

from torch import Tensor

from ada2i.balance.base import StepScales
from ada2i.balance.disparity import disparity_ratio, modulation
from ada2i.balance.none import NoBalancer
from ada2i.config import Ada2IBalance


class Ada2IBalancer(NoBalancer):
    """Modulates by the disparity ratio from ``start_epoch`` on; it has no state."""

    config: Ada2IBalance
    active = True  # whether the steps of the epoch are modulated

    def set_epoch(self, epoch: int) -> None:
        """See ``Balancer``."""
        super().set_epoch(epoch)
        self.active = epoch >= self.config.start_epoch

    def scales(self, statistics: Mapping[str, Tensor]) -> StepScales:
        """See ``Balancer``."""
        if not self.active:
            return super().scales(statistics)
        ratio = disparity_ratio(statistics["scores"], statistics["counts"])
        coefficient = modulation(ratio, self.config.alpha)
        return self.modulated(statistics, coefficient, self.config.acts_on, noise=self.config.noise)
