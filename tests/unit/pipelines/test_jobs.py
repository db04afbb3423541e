"""Which live jobs have lost their flow run, and which crashed runs are retried."""

import json
import uuid
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.exceptions import ObjectNotFound
from prefect.states import AwaitingRetry, Cancelled, Cancelling, Completed, Crashed, Failed, Pending, Running, Scheduled

from ada2i.jobs import client
from ada2i.usecases import extraction_id
from infra.services import _AUTOMATIONS
from pipelines import summary
from pipelines.jobs import _RETRY, LOST, flow_run_of, reap, report_lost, retry_crashed


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


def retry() -> Any:
    return AwaitingRetry(message=_RETRY)


class Crashes:
    """A Prefect server with one crashed run."""

    def __init__(self, *history: Any, deployed: bool = True) -> None:
        self.history: list[Any] = [Scheduled(), Pending(), *history]
        self.run = SimpleNamespace(id=uuid.uuid4(), deployment_id=uuid.uuid4() if deployed else None)
        self.filters: dict[str, Any] = {}

    def read_flow_runs(self, **filters: Any) -> list[Any]:
        self.filters = filters
        return [self.run] if self.history[-1].is_crashed() else []

    def read_flow_run_states(self, run: uuid.UUID) -> list[Any]:
        assert run == self.run.id
        return self.history

    def set_flow_run_state(self, run: uuid.UUID, state: Any, *, force: bool) -> None:
        assert (run, force) == (self.run.id, True)
        self.history.append(state)


def retries(server: Any) -> bool:
    before = len(server.history)
    found = retry_crashed(server)
    assert found == [str(server.run.id)] * (len(server.history) - before)
    return bool(found)


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([Running(), Crashed()], True),
        ([Crashed()], True),  # its worker was killed before it started
        ([Running(), Crashed(), retry(), Crashed()], True),  # the worker reported the crash again
        ([Running(), Crashed(), retry(), Pending(), Running(), Crashed()], False),
        ([Running(), Crashed(), retry(), Running(), Crashed(), Scheduled(message="By hand"), Crashed()], False),
        ([Crashed(), retry(), Crashed(), retry(), Crashed(), retry(), Crashed()], False),
        ([Running(), Crashed(), Scheduled(message="By hand"), Running(), Crashed()], True),
        ([Running(), Cancelling(), Crashed()], False),  # a person has stopped it
    ],
)
def test_a_crashed_run_is_retried_until_it_has_started_again(history: list[Any], *, expected: bool) -> None:
    server = Crashes(*history)
    assert retries(server) == expected


def test_a_retry_waits_for_late_reports_of_the_crash() -> None:
    server = Crashes(Running(), Crashed())
    assert retries(server)
    state = server.history[-1]
    assert state.name == "AwaitingRetry"
    assert 10 < (state.state_details.scheduled_time - state.timestamp).total_seconds() < 20
    assert not retries(server)


def test_runs_without_a_deployment_are_not_retried() -> None:
    assert not retries(Crashes(Running(), Crashed(), deployed=False))


def test_only_recent_training_runs_are_looked_for() -> None:
    server = Crashes(Crashed())
    retry_crashed(server)  # type: ignore[arg-type]
    assert server.filters["flow_filter"].name.any_ == ["train-ada2i"]
    wanted = server.filters["flow_run_filter"]
    assert [str(kind.value) for kind in wanted.state.type.any_] == ["CRASHED"]
    assert wanted.end_time.after_ is not None


def test_what_the_automations_say_of_a_lost_run_is_known() -> None:
    automations = json.loads(_AUTOMATIONS.read_text())["automations"]
    assert tuple(action["message"] for automation in automations for action in automation["actions"]) == LOST


@pytest.mark.parametrize(
    ("message", "seconds_to_page", "reported"),
    [
        (LOST[0], None, True),
        (LOST[1], None, True),
        (LOST[0], -60, True),  # the page of an earlier attempt
        (LOST[0], 5, False),
        ("Flow run process exited.", None, False),
    ],
)
def test_a_run_whose_process_was_lost_is_reported_once(
    monkeypatch: pytest.MonkeyPatch, message: str, seconds_to_page: int | None, *, reported: bool
) -> None:
    run = SimpleNamespace(id=uuid.uuid4(), flow_id=uuid.uuid4(), state=Crashed(message=message))
    flow = SimpleNamespace(name="predict-emotions")
    page = SimpleNamespace(created=run.state.timestamp + timedelta(seconds=seconds_to_page or 0))
    server: Any = SimpleNamespace(
        read_flow_runs=lambda **_: [run],
        read_flow=lambda _: flow,
        read_artifacts=lambda **_: [] if seconds_to_page is None else [page],
    )
    reports: list[Any] = []
    monkeypatch.setattr(summary, "failed", lambda *report: reports.append(report))
    report_lost(server)
    assert reports == ([(flow, run, run.state)] if reported else [])
