"""The export of models to a tracker. A second export adds nothing."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

from ada2i.errors import ConfigError
from ada2i.registry.versions import check_known, models
from ada2i.tracking.to_mlflow import MlflowTracker
from ada2i.tracking.to_wandb import WandbTracker
from ada2i.tracking.tracked import Tracked, tracked

Kind = Literal["mlflow", "wandb"]


class Tracker(Protocol):
    """A place for runs."""

    def add(self, version: Tracked) -> bool:
        """Write a version unless it is there; return whether it was written."""


_TRACKERS: Mapping[Kind, Callable[[str], Tracker]] = {"mlflow": MlflowTracker, "wandb": WandbTracker}


def export(root: str, kind: Kind, to: str, chosen: Sequence[str] = ()) -> dict[str, bool]:
    """Export all versions of some models, by default of all; return by version whether it was written now.

    Args:
        root: The storage root.
        kind: The tracker.
        to: Its place: for `mlflow` a folder or ``sqlite:///FILE``, for `wandb` a folder.
        chosen: Names of models.

    Raises:
        ConfigError: The tracker is unknown or not installed, or the place is none of its.
        NotFoundError: There is no such model.
        IntegrityError: A file of a version differs from the registered one.
    """
    if kind not in _TRACKERS:
        raise ConfigError(f"A tracker must be one of {', '.join(_TRACKERS)}, but is {kind!r}. Name one of these.")
    for model in chosen:
        check_known(root, model)
    if importlib.util.find_spec(kind) is None:
        raise ConfigError(f"The tracker {kind} must be installed, but is not. Run: pip install 'ada2i[track]'")
    tracker = _TRACKERS[kind](to)
    return {version.name: tracker.add(version) for model in chosen or models(root) for version in tracked(root, model)}
