"""A flow shows the progress of a job; an error in showing it never ends the job."""

import logging
import uuid
from typing import Any

import httpx
import pytest

from ada2i.errors import JobError
from ada2i.jobs.events import Event
from pipelines import hooks

ADDRESS = "http://127.0.0.1:9"


class Follower(hooks.Follower):
    """Remembers events."""

    key, description = "k", "d"

    def __init__(self) -> None:
        super().__init__("file:///runs/r1")
        self.events: list[Event] = []

    def show(self, event: Event) -> None:
        self.events.append(event)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the progress artifact was set to."""
    values: list[float] = []

    def create(progress: float, **_: Any) -> uuid.UUID:
        values.append(progress)
        return uuid.uuid4()

    monkeypatch.setattr(hooks, "get_run_logger", lambda: logging.getLogger("flow"))
    monkeypatch.setattr(hooks, "create_progress_artifact", create)
    monkeypatch.setattr(hooks, "update_progress_artifact", lambda _, progress: values.append(progress))
    return values


def away(*_: Any, **__: Any) -> None:
    raise httpx.ConnectError("All connection attempts failed", request=httpx.Request("POST", ADDRESS))


def test_an_unreachable_server_ends_no_job_and_is_warned_of_once(
    shown: list[float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    follower = Follower()
    monkeypatch.setattr(hooks, "update_progress_artifact", away)
    with follower.following():
        follower.progress(10.0)
        follower.progress(20.0)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "Progress is not shown for now: ConnectError" in caplog.text


def test_a_server_that_is_unreachable_from_the_start(shown: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "create_progress_artifact", away)
    with Follower().following():
        pass
    assert shown == []


def test_events_are_shown_and_lines_are_logged_by_level(shown: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    follower = Follower()
    lines = [
        "step 1",
        "WARNING ada2i.data: odd",
        '{"level": "error", "event": "x"}',
        "Traceback (most recent call last):",
    ]
    follower({"kind": "epoch"})
    for line in lines:
        follower(line)
    assert follower.events == [{"kind": "epoch"}]
    assert [record.levelname for record in caplog.records] == ["DEBUG", "WARNING", "WARNING", "WARNING"]


def test_a_failed_job_leaves_its_last_lines_in_the_log(shown: list[float], caplog: pytest.LogCaptureFixture) -> None:
    follower = Follower()

    def fail() -> None:
        with follower.following():
            for number in range(30):
                follower(f"line {number}")
            raise JobError("It ended.")

    with pytest.raises(JobError, match="It ended"):
        fail()
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.getMessage().splitlines() == ["Last lines of the job's log:", *(f"line {n}" for n in range(10, 30))]
    assert shown == [0.0]


def test_an_early_stop_fills_the_bar(shown: list[float]) -> None:
    follower = Follower()
    with follower.following():
        follower.progress(40.0)
    assert shown == [0.0, 40.0, 100.0]
