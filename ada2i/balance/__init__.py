"""Methods that keep one modality from dominating the others in training; ``balance.method`` chooses one.

A method is a file of this package with a ``Balancer`` class, a config class in the union
``ada2i.config.BalanceConfig``, and a line in ``METHODS``. Training uses it only through the ``Balancer`` interface.
"""

from typing import Any, Final

from ada2i.balance.ada2i import Ada2IBalancer
from ada2i.balance.agm import AgmBalancer
from ada2i.balance.arl import ArlBalancer
from ada2i.balance.base import Balancer
from ada2i.balance.dgl import DglBalancer
from ada2i.balance.mmpareto import MmParetoBalancer
from ada2i.balance.none import NoBalancer
from ada2i.balance.ogm_ge import OgmGeBalancer
from ada2i.balance.opm import OpmBalancer
from ada2i.balance.pmr import PmrBalancer
from ada2i.balance.spcl import SpclBalancer
from ada2i.balance.tcmax import TcMaxBalancer
from ada2i.balance.unimodal import UnimodalBalancer
from ada2i.config import TrainConfig

__all__ = ["base", "make_balancer", "noise"]

METHODS: Final[dict[str, Any]] = {
    "ada2i": Ada2IBalancer,
    "none": NoBalancer,
    "ogm-ge": OgmGeBalancer,
    "unimodal": UnimodalBalancer,
    "tcmax": TcMaxBalancer,
    "dgl": DglBalancer,
    "mmpareto": MmParetoBalancer,
    "agm": AgmBalancer,
    "arl": ArlBalancer,
    "spcl": SpclBalancer,
    "pmr": PmrBalancer,
    "opm": OpmBalancer,
}
"""The balancer class of each ``balance.method``."""


def make_balancer(config: TrainConfig) -> Balancer:
    """Return the balancer of a config; ablation ``no_modulation`` selects method ``none``."""
    if config.ablations.no_modulation:
        return NoBalancer(config.balance)
    balancer: Balancer = METHODS[config.balance.method](config.balance)
    return balancer
