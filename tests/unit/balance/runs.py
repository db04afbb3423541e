"""Settings of every method: enough to act within a few steps, and the null setting that changes nothing."""

from collections.abc import Mapping
from typing import Any

ACTIVE: Mapping[str, Mapping[str, Any]] = {
    "none": {},
    "ada2i": {"start_epoch": 1},
    "ogm-ge": {"start_epoch": 1},
    "unimodal": {},
    "tcmax": {},
    "dgl": {},
    "mmpareto": {},
    "agm": {"alpha": 5.0},
    "arl": {"start_epoch": 1},
    "spcl": {"threshold": 0.005},
    "pmr": {"alpha": 20.0, "entropy": 1.0},
    "opm": {"rate": 0.2},
    "umt": {},
}
NULL: Mapping[str, Mapping[str, Any]] = {
    "none": {},
    "ada2i": {"start_epoch": 1, "alpha": 0.0, "noise": False},
    "ogm-ge": {"start_epoch": 1, "alpha": 0.0, "noise": False},
    "unimodal": {"weight": 0.0},
    "tcmax": {"weight": 0.0},
    "dgl": {"weight": 0.0, "joint": 1.0},
    "mmpareto": {"weight": 0.0},
    "agm": {"alpha": 0.0},
    "arl": {"start_epoch": 1, "weight": 0.0, "strength": 0.0},
    "spcl": {"threshold": None},
    "pmr": {"alpha": 0.0, "entropy": 0.0},
    "opm": {"rate": 0.0, "base": 0.0},
    "umt": {"weight": 0.0},
}


def overrides(method: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a method as dotted fields."""
    return {"balance.method": method, **{f"balance.{name}": value for name, value in settings.items()}}
