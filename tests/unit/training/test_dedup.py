"""Whether a run would repeat a version: by features and config, and by nothing else."""

from typing import Any

import pytest

from ada2i import storage
from ada2i.records import RunRequest, RunResult
from ada2i.registry.versions import Version, register
from ada2i.store import RunFolder
from ada2i.training.dedup import repeats
from tests.runs import run_uri
from tests.unit.registry.conftest import root  # noqa: F401
from tests.unit.registry.finished import finished_run


def requested(root: str, run_id: str, result: RunResult, **changes: Any) -> str:  # noqa: F811
    """Write the request of a run as that of another one, but for some changes; return the run's URI."""
    request = RunRequest(run_id=run_id, config=result.config, features=result.features)
    uri = run_uri(root, run_id)
    storage.put(storage.join(uri, "request.json"), request.model_copy(update=changes).to_json())
    return uri


@pytest.fixture
def result(root: str) -> RunResult:  # noqa: F811
    """An evaluated run that is registered."""
    made = finished_run(root, "run-a")
    register(made.run_uri, root=root)
    return made


def found(root: str, uri: str) -> int | None:  # noqa: F811
    version: Version | None = repeats(RunFolder(uri).request(), root=root, model=None)
    return version.number if version else None


def test_the_same_features_and_config_repeat(root: str, result: RunResult) -> None:  # noqa: F811
    assert found(root, requested(root, "run-b", result)) == 1
    assert repeats(RunFolder(requested(root, "run-c", result)).request(), root=root, model="another") is None


def test_other_workers_repeat_too(root: str, result: RunResult) -> None:  # noqa: F811
    resources = result.config.resources.model_copy(update={"workers": 7})
    config = result.config.model_copy(update={"resources": resources})
    assert found(root, requested(root, "run-b", result, config=config)) == 1


def test_other_features_and_configs_do_not(root: str, result: RunResult) -> None:  # noqa: F811
    features = result.features.model_copy(update={"fingerprint": "new"})
    assert found(root, requested(root, "run-b", result, features=features)) is None
    training = result.config.training.model_copy(update={"seeds": (1,)})
    config = result.config.model_copy(update={"training": training})
    assert found(root, requested(root, "run-c", result, config=config)) is None


def test_every_version_counts_and_the_newest_is_named(root: str, result: RunResult) -> None:  # noqa: F811
    newer = finished_run(root, "run-b", seeds=(1,))
    register(newer.run_uri, root=root)
    assert found(root, requested(root, "run-d", result)) == 1
    assert found(root, requested(root, "run-e", newer)) == 2
    register(finished_run(root, "run-c").run_uri, root=root)
    assert found(root, requested(root, "run-f", result)) == 3


def test_a_run_does_not_repeat_itself(root: str, result: RunResult) -> None:  # noqa: F811
    register(finished_run(root, "run-b").run_uri, root=root)
    assert found(root, requested(root, "run-a", result)) is None
