"""Every use of Ray's private interface, so that only this file must be checked when Ray is upgraded.

``tests/unit/jobs/test_ray_compat.py`` fails with a version of Ray for which these functions were not checked.
"""

from typing import Any, Final

CHECKED: Final = "2.60."
"""Prefix of the versions of Ray for which this file was checked."""


def put_flag(name: str, *, namespace: str) -> None:
    """Set a flag in the cluster's key-value store."""
    from ray.experimental import internal_kv

    internal_kv._internal_kv_put(name.encode(), b"", namespace=namespace)


def has_flag(name: str, *, namespace: str) -> bool:
    """Return whether a flag is set in the cluster's key-value store."""
    from ray.experimental import internal_kv

    return bool(internal_kv._internal_kv_exists(name.encode(), namespace=namespace))


def trainer(*arguments: Any, **options: Any) -> Any:
    """Return a trainer of Ray Train that starts sooner than ``TorchTrainer``, for ranks that read no Ray dataset.

    Driver and controller do not import torch, which would take each of them 2 s before a rank starts, and no process is
    started to manage datasets.
    """
    from ray.train.v2._internal.callbacks import DatasetsCallback
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    class Trainer(DataParallelTrainer):
        def _create_default_callbacks(self) -> list[Any]:
            return [found for found in super()._create_default_callbacks() if not isinstance(found, DatasetsCallback)]

    return Trainer(*arguments, **options)


def torch_framework() -> Any:
    """Return torch's name in the state of a training, which Ray's dashboard shows."""
    from ray.train.v2._internal.util import TrainingFramework

    return TrainingFramework.TORCH


def is_draining(node_id: str) -> bool:
    """Return whether the cluster is about to remove a node."""
    from ray._private.state import state

    return node_id in state.get_draining_nodes()
