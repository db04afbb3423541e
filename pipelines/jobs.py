"""Ray jobs of flow runs: the ids that connect them, and how jobs are stopped after their flow run has ended."""

import os
import time
import uuid
from typing import Any

from prefect import flow, get_client, get_run_logger
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow

from ada2i.jobs import client
from ada2i.usecases import extraction_id, run_of_extraction

_PAUSE = 10.0  # seconds between two looks at the jobs


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
    """Stop live jobs whose flow run has ended.

    Returns:
        Ids of the runs whose jobs were stopped.
    """
    address = os.environ.get("RAY_API_SERVER_ADDRESS")
    if not address:
        return []  # each run has a private cluster that ends with the run
    stopped: list[str] = []
    with get_client(sync_client=True) as prefect:
        # Runs that crash meanwhile start no other one.
        while new := [run for run in reap(address, prefect) if run not in stopped]:
            stopped += new
            time.sleep(_PAUSE)
    get_run_logger().info("Stopped: %s", ", ".join(stopped) or "nothing")
    return stopped


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
