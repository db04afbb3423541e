"""Methods that keep one modality from dominating the others in training; ``balance.method`` chooses one.

A method of this package is a file with a ``Balancer`` class, a config class in the union
``ada2i.config.BalanceConfig``, and a line in ``METHODS``. Training uses it only through the ``Balancer`` interface.
"""

from collections.abc import Callable, Mapping
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
from ada2i.balance.umt import UmtBalancer
from ada2i.balance.unimodal import UnimodalBalancer
from ada2i.config import OwnBalance, TrainConfig
from ada2i.errors import ConfigError
from ada2i.jobs import code

__all__ = ["base", "make_balancer", "noise", "none", "votes"]

METHODS: Final[Mapping[str, Callable[[Any], Balancer]]] = {
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
    "umt": UmtBalancer,
}
"""The balancer class of each ``balance.method``."""


def make_balancer(config: TrainConfig) -> Balancer:
    """Return the balancer of a config; ablation ``no_modulation`` selects method ``none``."""
    if config.ablations.no_modulation:
        return NoBalancer(config.balance)
    if config.balance.method in METHODS:
        return METHODS[config.balance.method](config.balance)
    assert isinstance(config.balance, OwnBalance)
    return _own(config.balance, {"modalities": config.model.modalities, "hidden_dim": config.model.hidden_dim})


def _own(config: OwnBalance, numbers: Mapping[str, Any]) -> Balancer:
    found: Balancer = code.build(config.method, "The balance method", {"config": config, **numbers}, config.options)
    needed = [name for name in vars(Balancer) if not name.startswith("_")]
    if missing := [name for name in needed if not callable(getattr(found, name, None))]:
        raise ConfigError(
            f"The balance method {config.method} must have the methods of ada2i.balance.base.Balancer, but lacks "
            f"{', '.join(missing)}. Derive its class from ada2i.balance.none.NoBalancer.",
            code=config.method,
        )
    return found
