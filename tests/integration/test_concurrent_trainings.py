"""Runs of `train-ada2i` that are requested at once: different models train at once, one model trains once."""

import os
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun

from ada2i.jobs import client
from ada2i.registry.versions import versions
from infra.services import DEPLOYMENT
from infra.stack import Stack
from tests.runs import SLOW, until

pytestmark = pytest.mark.integration

SETTINGS = {**SLOW, "resources.workers": 1}
OVERRIDES = {name: value for name, value in SETTINGS.items() if name != "training.seeds"}


@pytest.fixture
def prefect(stack: Stack) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as api:
        yield api


def start(prefect: SyncPrefectClient, root: str, model: str) -> FlowRun:
    deployment = prefect.read_deployment_by_name(f"{DEPLOYMENT}/{DEPLOYMENT}")
    parameters = {"features": "demo", "overrides": OVERRIDES, "seeds": [1], "model": model, "root": root}
    return prefect.create_flow_run_from_deployment(deployment.id, parameters=parameters | {"promote": False})


def ended(prefect: SyncPrefectClient, run: FlowRun) -> str:
    """Return the name of the state in which a run has ended; empty before."""
    found = prefect.read_flow_run(run.id).state
    return str(found.name) if found is not None and found.is_final() else ""


def times(run: FlowRun) -> tuple[int, int]:
    """Return when the one job of a run began and ended, in milliseconds."""
    found: list[Any] = client._attempts(client.connect(os.environ["RAY_API_SERVER_ADDRESS"]), str(run.id))
    (job,) = found
    return job.start_time, job.end_time


def test_models_train_at_once_but_each_only_once(stack: Stack, prefect: SyncPrefectClient, root: str) -> None:
    home = f"{root}-concurrent"
    one, same, other = (start(prefect, home, model) for model in ("one", "one", "other"))
    found = [until(partial(ended, prefect, run), f"the end of {run.name}", 900.0) for run in (one, same, other)]

    # Which of the two came first is not said: the second waits, and finds the first one's version.
    assert sorted(found[:2]) == ["Registered", "Skipped"]
    assert found[2] == "Registered"
    (version,) = versions(home, "one")
    first = one if version.flow_run_id == str(one.id) else same
    (first_begun, first_ended), (other_begun, other_ended) = times(first), times(other)
    assert first_begun < other_ended
    assert other_begun < first_ended
