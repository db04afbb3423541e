"""OGM-GE: encoders ahead of the others learn more slowly, and all get noise (Peng et al., CVPR 2022).

Shape letters in this file:
    M modalities
"""

from collections.abc import Mapping

from torch import Tensor

from ada2i.balance.base import StepScales
from ada2i.balance.disparity import lead, modulation
from ada2i.balance.none import NoBalancer
from ada2i.config import OgmGeBalance


class OgmGeBalancer(NoBalancer):
    """Modulates by each modality's lead over the mean of the others; it has no state."""

    config: OgmGeBalance

    def scales(self, statistics: Mapping[str, Tensor]) -> StepScales:
        """See ``Balancer``."""
        if self.epoch < self.config.start_epoch:
            return super().scales(statistics)
        ahead = lead(statistics["scores"], statistics["counts"])
        coefficient = modulation(ahead, self.config.alpha)
        return self.modulated(statistics, coefficient, self.config.acts_on, noise=self.config.noise)
