"""Methods that keep one modality from starving the others in training; ``balance.method`` chooses one.

A method is a file of this package with the method's name and a class ``Method``, and a config class in the union
``ada2i.config.BalanceConfig``. Training knows it only as a ``Balancer``.
"""

from importlib import import_module

from ada2i.balance.base import Balancer
from ada2i.config import TrainConfig


def make_balancer(config: TrainConfig) -> Balancer:
    """Return the balancer of a config; ablation ``no_modulation`` means method ``none``."""
    method = "none" if config.ablations.no_modulation else config.balance.method
    balancer: Balancer = import_module(f"{__name__}.{method}").Method(config.balance)
    return balancer


__all__ = ["base", "noise"]
