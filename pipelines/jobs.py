"""Ray jobs of flow runs: which are whose, and how those of runs that have ended are stopped."""

import os
import uuid
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow

from ada2i.jobs import client

_EXTRACTION = "-extract"


def extraction_id(flow_run: str) -> str:
    """Return the id of a flow run's extraction, which differs from that of its training."""
    return f"{flow_run}{_EXTRACTION}"


def flow_run_of(run_id: str) -> uuid.UUID | None:
    """Return the flow run that a run belongs to; None where no flow started it."""
    try:
        return uuid.UUID(run_id.removesuffix(_EXTRACTION))
    except ValueError:
        return None


def stop_jobs(flow: Flow[Any, Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001
    """Stop a flow run's Ray jobs when it is cancelled or crashes; Prefect calls it with these names."""
    address = os.environ.get("RAY_API_SERVER_ADDRESS")
    if address:  # a private cluster ends with its flow
        for run_id in (extraction_id(str(flow_run.id)), str(flow_run.id)):
            client.stop(address, run_id)


def reap(address: str, prefect: SyncPrefectClient) -> list[str]:
    """Stop live jobs whose flow run has ended, as a kill of flow and worker leaves them; return their runs.

    A run that somebody retries is no longer ended, and keeps its job. One that this server does not know is left alone:
    another server's flow may be using the cluster.

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
