"""Every use of Ray's private interface, so that only this file must be checked when Ray is upgraded.

``tests/unit/jobs/test_ray_compat.py`` fails with a version of Ray for which these functions were not checked.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.backend import BackendConfig

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


def trainer(
    work: Callable[[dict[str, Any]], Any],
    *,
    train_loop_config: dict[str, Any],
    scaling_config: "ScalingConfig",
    backend_config: "BackendConfig",
    run_config: "RunConfig",
) -> Any:
    """Return a trainer of Ray Train for ranks that read no Ray dataset; it starts sooner than ``TorchTrainer``.

    The driver and the controller of a training need not import torch, which takes each of them 2 s before a rank
    starts, and no process manages datasets. The arguments are those of ``TorchTrainer``.
    """
    from ray.train.v2._internal.callbacks import DatasetsCallback
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    class Trainer(DataParallelTrainer):
        def _create_default_callbacks(self) -> list[Any]:
            return [found for found in super()._create_default_callbacks() if not isinstance(found, DatasetsCallback)]

    return Trainer(
        work,
        train_loop_config=train_loop_config,
        scaling_config=scaling_config,
        backend_config=backend_config,
        run_config=run_config,
    )


def torch_framework() -> Any:
    """Return torch's name in the state of a training, which Ray's dashboard shows."""
    from ray.train.v2._internal.util import TrainingFramework

    return TrainingFramework.TORCH


def is_draining(node_id: str) -> bool:
    """Return whether the cluster is about to remove a node."""
    from ray._private.state import state

    return node_id in state.get_draining_nodes()
