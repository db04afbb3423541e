"""Driver, flow process and worker killed: the run is retried once by itself; in the end one version and no job left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import ArtifactSort
from prefect.states import Crashed, Pending

from ada2i import storage
from ada2i.jobs import client, events, processes
from ada2i.registry.versions import versions
from infra.services import DEPLOYMENT, REPOSITORY
from infra.stack import Stack
from pipelines.summary import KEY
from tests.runs import SLOW, gone, run_uri, seed_uri, start_again, train_run, until

pytestmark = pytest.mark.integration

MODEL = "killed-flow"
SECONDS = 300.0
LONG = {"training.epochs": 200, "training.early_stopping_epochs": 200}  # longer than a worker takes to start


@pytest.fixture(scope="module")
def prefect(stack: Stack) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as api:
        yield api


def start(prefect: SyncPrefectClient, root: str) -> FlowRun:
    deployment = prefect.read_deployment_by_name(f"{DEPLOYMENT}/{DEPLOYMENT}")
    overrides = {name: value for name, value in SLOW.items() if name != "training.seeds"} | LONG
    parameters = {"features": "demo", "overrides": overrides, "seeds": [1], "model": MODEL, "root": root}
    more = {"promote": False, "force": True}  # an earlier test may have registered an equal version
    return prefect.create_flow_run_from_deployment(deployment.id, parameters=parameters | more)


def state(prefect: SyncPrefectClient, run: FlowRun) -> str:
    found = prefect.read_flow_run(run.id).state
    assert found is not None
    return str(found.name)


def attempts(run: FlowRun) -> list[Any]:
    return client._attempts(client.connect(os.environ["RAY_API_SERVER_ADDRESS"]), str(run.id))


def live(run: FlowRun) -> list[Any]:
    return [job for job in attempts(run) if not job.status.is_terminal()]


def training(run: FlowRun, root: str, attempt: int) -> Any:
    """Return an attempt's live job, once there is a checkpoint to resume from; None before."""
    checkpoints = storage.join(seed_uri(run_uri(root, str(run.id)), 1), "checkpoints")
    found = [job for job in live(run) if job.submission_id == f"{run.id}-{attempt}" and job.driver_info]
    assert len(live(run)) <= 1
    return found[0] if found and storage.children(checkpoints) else None


def flow_process(stack: Stack, run: FlowRun) -> int:
    """Return the process that runs a flow, 0 for none: one below the worker, with the run in its environment."""
    mark = f"PREFECT__FLOW_RUN_ID={run.id}".encode()
    family = sorted(member.pid for member in processes._family(stack.running["worker"]) if member.alive)
    return next((pid for pid in family if mark in _environment(pid)), 0)


def rank_process(run: FlowRun) -> int:
    """Return the process that trains, 0 while there is none."""
    attempts = train_run(str(run.id))["attempts"]
    pids = [int(worker["pid"]) for worker in attempts[-1]["workers"]] if attempts else []
    return next((pid for pid in pids if psutil.pid_exists(pid)), 0)


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def page(prefect: SyncPrefectClient, run: FlowRun) -> str:
    """Return a run's newest page."""
    own, key = ArtifactFilterFlowRunId(any_=[run.id]), ArtifactFilterKey(any_=[KEY])
    pages = ArtifactFilter(flow_run_id=own, key=key)
    return str(prefect.read_artifacts(artifact_filter=pages, sort=ArtifactSort.CREATED_DESC)[0].data)


def retry(run: FlowRun) -> None:
    command = [sys.executable, "-m", "prefect", "--no-prompt", "flow-run", "retry", str(run.id)]
    subprocess.run(command, cwd=REPOSITORY, check=True, timeout=SECONDS, capture_output=True)


def kill_worker_and_flow(stack: Stack, prefect: SyncPrefectClient, run: FlowRun) -> None:
    """Kill every process that could report the end of the run; then set the state that a missing heartbeat sets."""
    orphan = flow_process(stack, run)
    os.kill(stack.running["worker"].pid, signal.SIGKILL)
    os.kill(orphan, signal.SIGKILL)
    assert gone(orphan)
    assert live(run)
    lost: Any = Crashed(message="No sign of life for 5 minutes: its process is gone.")  # not waited for
    prefect.set_flow_run_state(run.id, lost, force=True)


def test_one_version_and_no_job_left(stack: Stack, root: str, prefect: SyncPrefectClient) -> None:
    run = start(prefect, root)

    # The driver: the flow's own retry submits the next attempt.
    first = until(lambda: training(run, root, 0), "a first attempt")
    os.kill(int(first.driver_info.pid), signal.SIGKILL)
    until(lambda: training(run, root, 1), "a second attempt")

    # The flow's process: the worker says that it crashed, the hook stops the job, and the run is retried by itself.
    os.kill(flow_process(stack, run), signal.SIGKILL)
    until(lambda: not live(run), "the end of a crashed run's job")
    until(lambda: training(run, root, 2), "a third attempt")

    # The worker too, and the run is retried at once: it finds its live job, which cannot end before, as it is paused.
    rank = until(lambda: rank_process(run), "a third attempt's training process")
    os.kill(rank, signal.SIGSTOP)
    kill_worker_and_flow(stack, prefect, run)
    retry(run)
    start_again(stack)
    until(lambda: state(prefect, run) == "Running", "a run that was tried again")
    until(lambda: flow_process(stack, run), "its process")
    time.sleep(10)  # in which it would submit another job
    assert [job.submission_id for job in live(run)] == [f"{run.id}-2"]
    os.kill(rank, signal.SIGCONT)

    # And once more: the reaper stops the job, and does not retry a second time.
    kill_worker_and_flow(stack, prefect, run)
    start_again(stack)
    until(lambda: not live(run), "the end of a lost run's job")
    time.sleep(30)  # a retry would come within 15 s
    assert state(prefect, run) == "Crashed"
    assert page(prefect, run).startswith("# Crashed\n\nNo sign of life for 5 minutes")

    retry(run)
    until(lambda: state(prefect, run) == "Registered", "the end")
    (version,) = versions(root, MODEL)
    assert (version.number, version.run_id, version.flow_run_id) == (1, str(run.id), str(run.id))
    statuses = [str(job.status) for job in attempts(run)]
    assert len(statuses) in (3, 4)  # training may have ended as the reaper came
    assert live(run) == []


def test_a_run_that_lost_its_flow_and_worker_resumes_without_help(
    stack: Stack, root: str, prefect: SyncPrefectClient
) -> None:
    run = start(prefect, root)
    until(lambda: training(run, root, 0), "a first attempt")
    kill_worker_and_flow(stack, prefect, run)
    start_again(stack)
    until(lambda: training(run, root, 1), "a second attempt")
    until(lambda: state(prefect, run) in ("Registered", "Failed", "Crashed"), "the end")
    final = prefect.read_flow_run(run.id)
    assert final.state is not None
    assert final.state.is_completed()
    assert [version.flow_run_id for version in versions(root, MODEL)].count(str(run.id)) == 1
    log = client.connect(os.environ["RAY_API_SERVER_ADDRESS"]).get_job_logs(f"{run.id}-1")
    epochs = [event["record"]["epoch"] for event in events.parse(log) if isinstance(event, dict) and "record" in event]
    assert epochs[0] > 1  # from a checkpoint


def test_a_run_that_lost_its_worker_while_pending_starts_without_help(
    stack: Stack, root: str, prefect: SyncPrefectClient
) -> None:
    os.kill(stack.running["worker"].pid, signal.SIGKILL)
    run = start(prefect, root)
    lost: list[Any] = [
        Pending(),
        Crashed(message="Not started within 5 minutes: its worker is gone."),
    ]  # not waited for
    for found in lost:
        prefect.set_flow_run_state(run.id, found, force=True)
    start_again(stack)
    until(lambda: state(prefect, run) in ("Registered", "Failed"), "the end")
    final = prefect.read_flow_run(run.id).state
    assert final is not None
    assert final.is_completed()
