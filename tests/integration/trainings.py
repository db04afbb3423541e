"""Trainings that events start."""

import time
from datetime import datetime

import pytest
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterStartTime
from prefect.client.schemas.objects import FlowRun


def finished_training(started: datetime, *, minutes: float = 8.0) -> FlowRun:
    """Wait for the end of the training that an event after ``started`` starts."""
    deadline = time.monotonic() + 60.0 * minutes
    after = FlowRunFilter(start_time=FlowRunFilterStartTime(after_=started))
    with get_client(sync_client=True) as client:
        while time.monotonic() < deadline:
            for run in client.read_flow_runs(flow_run_filter=after):
                deployed = run.deployment_id and client.read_deployment(run.deployment_id).name
                if deployed == "train-ada2i" and run.state is not None and run.state.is_final():
                    return run
            time.sleep(2.0)
    pytest.fail("No training that the event started has ended.")
