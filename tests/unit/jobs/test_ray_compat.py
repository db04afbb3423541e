"""Ray's private interface, which may change with any version."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private.state import state
from ray.experimental import internal_kv
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.execution.worker_group.worker import RayTrainWorker
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from ada2i.jobs import ray_compat
from ada2i.training.backend import OwnProcessGroup, PreemptionBackend
from ada2i.training.launch import work


def test_ray_is_a_version_that_the_file_was_checked_against() -> None:
    """Read ``jobs/ray_compat.py`` against a new version of Ray, run the fault tests, then raise ``CHECKED``."""
    assert ray.__version__.startswith(ray_compat.CHECKED)


def test_no_other_file_uses_it() -> None:
    product = Path(ray_compat.__file__).parents[2]
    files = [file for folder in ("ada2i", "pipelines", "infra") for file in (product / folder).rglob("*.py")]
    private = re.compile(r"\bray(\.\w+)*\._|\bray\.experimental|\bray\.train\.v2|internal_kv")
    found = [file.name for file in files if private.search(file.read_text())]
    assert found == ["ray_compat.py"]


def test_what_is_used_exists() -> None:
    assert {"key", "value", "namespace"} <= set(inspect.signature(internal_kv._internal_kv_put).parameters)
    assert {"key", "namespace"} <= set(inspect.signature(internal_kv._internal_kv_exists).parameters)
    assert callable(state.get_draining_nodes)
    options = inspect.signature(DataParallelTrainer).parameters
    assert {"train_loop_config", "backend_config", "scaling_config", "run_config"} <= set(options)
    assert callable(DataParallelTrainer._create_default_callbacks)
    assert inspect.signature(RayTrainWorker.init_train_context).parameters["dataset_shard_provider"].default is None
    assert ray_compat.torch_framework() is TorchConfig().framework


def test_the_trainer_is_the_base_of_ray_trains_own_for_torch() -> None:
    assert issubclass(TorchTrainer, DataParallelTrainer)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray, about settings of its own
def test_the_trainer_has_all_default_callbacks_but_that_for_datasets() -> None:
    options: dict[str, Any] = {
        "train_loop_config": {},
        "scaling_config": ScalingConfig(num_workers=2),
        "backend_config": OwnProcessGroup(),
        "run_config": RunConfig(name="callbacks"),
    }
    ours = ray_compat.trainer(work, **options)
    usual = DataParallelTrainer(work, **options)
    kept, default = ([type(found) for found in one._create_default_callbacks()] for one in (ours, usual))
    assert kept == [kind for kind in default if kind is not DatasetsCallback]
    assert len(kept) == len(default) - 1
    assert ours.backend_config.backend_cls is PreemptionBackend
