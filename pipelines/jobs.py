"""Ray jobs of flow runs: their ids, and what is done for a run that lost its process."""

import os
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect import flow, get_client, get_run_logger
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
)
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow
from prefect.states import AwaitingRetry

from ada2i.jobs import client
from ada2i.usecases import extraction_id, run_of_extraction
from pipelines import summary

_PAUSE = 10.0  # seconds between two looks at the jobs
_RETRIED = ("train-ada2i",)  # flows whose crashed runs are tried again: they resume from a checkpoint
_RETRY = "Retried automatically after a crash."
_ATTEMPTS = 3  # retries of a run that crashes before it starts
# What the automations of infra/automations.json say of a run that has lost its process.
LOST = ("No sign of life for 5 minutes: its process is gone.", "Not started within 5 minutes: its worker is gone.")
_RECENT = timedelta(hours=12)  # older crashes stay as they are, such as those from before an upgrade
_DELAY = timedelta(seconds=15)  # a worker may report a crash a second time


def flow_run_of(run_id: str) -> uuid.UUID | None:
    """Return the flow run that started a run, or None if no flow started it."""
    try:
        return uuid.UUID(run_of_extraction(run_id))
    except ValueError:
        return None


def stop_jobs(flow: Flow[Any, Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001
    """Stop a flow run's Ray jobs when it is cancelled or crashes; Prefect calls it with these argument names."""
    address = os.environ.get("RAY_API_SERVER_ADDRESS")
    if address:  # without one, the private cluster ends with its flow
        for run_id in (extraction_id(str(flow_run.id)), str(flow_run.id)):
            client.stop(address, run_id)


@flow(name="reap-ada2i-jobs", retries=2, retry_delay_seconds=30)
def reap_ada2i_jobs() -> list[str]:
    """Stop live jobs whose flow run has ended, retry crashed training runs, and report runs that lost their process.

    A training run is retried until it has started once more, at most three times.

    Returns:
        Ids of the runs whose jobs were stopped or that were retried.
    """
    address = os.environ.get("RAY_API_SERVER_ADDRESS")
    done: list[str] = []
    with get_client(sync_client=True) as prefect:
        # Runs that crash meanwhile start no other one.
        while new := [run for run in _settle(address, prefect) if run not in done]:
            done += new
            time.sleep(_PAUSE)
    return done


def _settle(address: str | None, prefect: SyncPrefectClient) -> list[str]:
    """Without an address, each run has a private cluster that ends with the run."""
    stopped = reap(address, prefect) if address else []
    retried = retry_crashed(prefect)
    report_lost(prefect)
    get_run_logger().info("Stopped: %s. Retried: %s.", ", ".join(stopped) or "none", ", ".join(retried) or "none")
    return [*stopped, *retried]


def retry_crashed(prefect: SyncPrefectClient) -> list[str]:
    """Retry deployed training runs that have crashed, each until it has started once more; return their ids."""
    flows = FlowFilter(name=FlowFilterName(any_=list(_RETRIED)))
    retried = []
    for run in prefect.read_flow_runs(flow_filter=flows, flow_run_filter=_recent_crashes()):
        if run.deployment_id and _may_retry(prefect.read_flow_run_states(run.id)):
            state: Any = AwaitingRetry(scheduled_time=datetime.now(UTC) + _DELAY, message=_RETRY)
            prefect.set_flow_run_state(run.id, state, force=True)
            retried.append(str(run.id))
    return retried


def report_lost(prefect: SyncPrefectClient) -> None:
    """Write the page and send the alert of each run that an automation marked as crashed: its own hooks did not run."""
    for run in prefect.read_flow_runs(flow_run_filter=_recent_crashes()):
        if run.state and run.state.message in LOST and not _has_page(prefect, run, since=run.state.timestamp):
            flow: Any = prefect.read_flow(run.flow_id)  # of which the report needs the name
            summary.failed(flow, run, run.state)


def _recent_crashes() -> FlowRunFilter:
    recent = datetime.now(UTC) - _RECENT
    return FlowRunFilter.model_validate({"state": {"type": {"any_": ["CRASHED"]}}, "end_time": {"after_": recent}})


def _has_page(prefect: SyncPrefectClient, run: FlowRun, *, since: datetime) -> bool:
    own, key = ArtifactFilterFlowRunId(any_=[run.id]), ArtifactFilterKey(any_=[summary.KEY])
    pages = prefect.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=own, key=key))
    return any(page.created and page.created >= since for page in pages)


def _may_retry(states: Sequence[State[Any]]) -> bool:
    """Return whether a run with these states, oldest first, was not started again by an automatic retry."""
    retries = [index for index, state in enumerate(states) if state.message == _RETRY]
    started = any(state.is_running() for state in states[min(retries, default=len(states)) :])
    return not started and len(retries) < _ATTEMPTS and not any(state.is_cancelling() for state in states)


def reap(address: str, prefect: SyncPrefectClient) -> list[str]:
    """Stop live jobs whose flow run has ended, for example after a kill of flow and worker; return their run ids.

    A flow run that will be retried has not ended, so its job is kept. So is the job of a flow run that this server does
    not know: the flow may belong to another server that uses the same cluster.

    Raises:
        UnreachableError: The cluster does not answer.
    """
    stopped = []
    for run_id in sorted(client.live_runs(address)):
        flow_run = flow_run_of(run_id)
        if flow_run is not None and _has_ended(prefect, flow_run):
            client.stop(address, run_id)
            stopped.append(run_id)
    return stopped


def _has_ended(prefect: SyncPrefectClient, flow_run: uuid.UUID) -> bool:
    try:
        state = prefect.read_flow_run(flow_run).state
    except ObjectNotFound:
        return False
    return state is not None and state.is_final()
