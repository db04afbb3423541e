"""Methods that keep one modality from dominating the others in training; ``balance.method`` chooses one.

A method is a file of this package with a ``Balancer`` class, a config class in the union
``ada2i.config.BalanceConfig``, and a line in ``METHODS``. Training uses it only through the ``Balancer`` interface.
"""

from typing import Any, Final

from ada2i.balance.ada2i import Ada2IBalancer
from ada2i.balance.base import Balancer
from ada2i.balance.none import NoBalancer
from ada2i.config import TrainConfig

__all__ = ["base", "make_balancer", "noise"]

METHODS: Final[dict[str, Any]] = {"ada2i": Ada2IBalancer, "none": NoBalancer}
"""The balancer class of each ``balance.method``."""


def make_balancer(config: TrainConfig) -> Balancer:
    """Return the balancer of a config; ablation ``no_modulation`` selects method ``none``."""
    method = "none" if config.ablations.no_modulation else config.balance.method
    balancer: Balancer = METHODS[method](config.balance)
    return balancer
