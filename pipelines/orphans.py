"""Flow `reap-ada2i-jobs`: stops Ray jobs whose flow run is gone; started by the event that says so."""

import os

from prefect import flow, get_client, get_run_logger

from pipelines.jobs import reap


@flow(name="reap-ada2i-jobs", retries=2, retry_delay_seconds=30)
def reap_ada2i_jobs() -> list[str]:
    """Stop live jobs whose flow run has ended.

    Returns:
        Ids of the runs whose jobs were stopped.
    """
    address = os.environ.get("RAY_API_SERVER_ADDRESS")
    if not address:
        return []  # each run has a cluster of its own, which ends with it
    with get_client(sync_client=True) as prefect:
        stopped = reap(address, prefect)
    get_run_logger().info("Stopped: %s", ", ".join(stopped) or "nothing")
    return stopped
