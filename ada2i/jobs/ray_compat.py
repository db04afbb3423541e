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
    """Return Ray Train's trainer: the base of ``TorchTrainer``, which would import torch in driver and controller.

    Each of the two would start 2 s later, before any rank starts; only ranks compute with torch.
    """
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    return DataParallelTrainer(*arguments, **options)


def torch_framework() -> Any:
    """Return torch's name in the state of a training, which Ray's dashboard shows."""
    from ray.train.v2._internal.util import TrainingFramework

    return TrainingFramework.TORCH


def is_draining(node_id: str) -> bool:
    """Return whether the cluster is about to remove a node."""
    from ray._private.state import state

    return node_id in state.get_draining_nodes()
