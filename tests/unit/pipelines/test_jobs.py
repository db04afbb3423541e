"""Which live jobs have lost their flow run."""

import uuid
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Completed, Crashed, Failed, Running, Scheduled

from ada2i.jobs import client
from ada2i.usecases import extraction_id
from pipelines.jobs import flow_run_of, reap


def test_a_run_knows_its_flow_run() -> None:
    run = uuid.uuid4()
    assert flow_run_of(str(run)) == flow_run_of(extraction_id(str(run))) == run
    assert flow_run_of("20260301-120000-abcdef") is None


class Server:
    """A Prefect server that knows some flow runs."""

    def __init__(self, states: dict[uuid.UUID, Any]) -> None:
        self.states = states

    def read_flow_run(self, flow_run: uuid.UUID) -> Any:
        if flow_run not in self.states:
            raise ObjectNotFound(http_exc=LookupError())
        return SimpleNamespace(state=self.states[flow_run])


def test_jobs_of_ended_runs_are_stopped_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: dict[uuid.UUID, Any] = {uuid.uuid4(): end() for end in (Crashed, Cancelled, Failed, Completed)}
    alive: dict[uuid.UUID, Any] = {uuid.uuid4(): Running(), uuid.uuid4(): Scheduled(), uuid.uuid4(): None}
    strangers = {str(uuid.uuid4()), "20260301-120000-abcdef"}  # of another server, and of a command line
    crashed = next(iter(ended))
    live = {str(run) for run in (*ended, *alive)} | {extraction_id(str(crashed))} | strangers
    stopped: list[str] = []
    monkeypatch.setattr(client, "live_runs", lambda _: live)
    monkeypatch.setattr(client, "stop", lambda _, run: stopped.append(run))
    server: Any = Server(ended | alive)
    assert reap("http://127.0.0.1:1", server) == stopped
    assert set(stopped) == {str(run) for run in ended} | {extraction_id(str(crashed))}
