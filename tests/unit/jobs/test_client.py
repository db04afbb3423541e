"""Following a job to its end, against a made-up Jobs API."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ada2i.errors import DataError, DivergenceError, JobError, ResourceError, UnreachableError
from ada2i.jobs import client

EVENT = '{"ada2i_event": "epoch", "seed": 1}\n'


class Status(str):
    """As Ray's: a string that knows whether it is an end."""

    __slots__ = ()

    def is_terminal(self) -> bool:
        return self in ("SUCCEEDED", "FAILED", "STOPPED")


class Client:
    """A job that goes through some states.

    Args:
        states: The statuses, one per request, or errors of requests.
        log: The whole log at the end.
        streams: Of each connection in turn, the chunks; it is lost after them, or after the last one stays open.
        message: What the cluster says at the end.
    """

    def __init__(
        self,
        *states: str | Exception,
        log: str = "",
        streams: tuple[tuple[str, ...], ...] = ((),),
        message: str = "",
        away_at_the_end: bool = False,
    ) -> None:
        self.states, self.log, self.streams, self.message = list(states), log, list(streams), message
        self.away_at_the_end = away_at_the_end

    def get_job_status(self, _submission: str) -> Status:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(state, Exception):
            raise state
        return Status(state)

    async def tail_job_logs(self, _submission: str) -> AsyncIterator[str]:
        for chunk in self.streams.pop(0):
            yield chunk
        if not self.streams:
            await asyncio.sleep(2)
        raise RuntimeError("the connection was lost")

    def get_job_logs(self, _submission: str) -> str:
        return self.log

    def get_job_info(self, _submission: str) -> SimpleNamespace:
        if self.away_at_the_end:
            self.away_at_the_end = False
            raise ConnectionError("away")
        return SimpleNamespace(message=self.message)


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_POLL_SECONDS", 0.1)


@pytest.fixture
def run_uri(tmp_path: Path) -> str:
    return (tmp_path / "runs" / "r1").as_uri()


def follow(monkeypatch: pytest.MonkeyPatch, api: Client, run_uri: str = "file:///nowhere") -> list[Any]:
    seen: list[Any] = []
    monkeypatch.setattr(client, "connect", lambda _: api)
    client.follow("job-0", client.Job("x:y", run_uri, "0"), address="http://127.0.0.1", on_event=seen.append)
    return seen


def test_each_event_comes_once_and_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    half = EVENT[:20]
    api = Client("RUNNING", "RUNNING", "SUCCEEDED", log=EVENT + "noise\n", streams=((half, EVENT[20:], "noi"),))
    assert follow(monkeypatch, api) == [{"kind": "epoch", "seed": 1}, "noise"]


def test_events_come_while_the_job_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    api = Client("RUNNING", "RUNNING", RuntimeError("still running"), streams=((EVENT,),))
    monkeypatch.setattr(client, "_GONE_SECONDS", -1.0)
    with pytest.raises(UnreachableError):
        client._wait_for_end(api, "job-0", client.Follower(seen.append))  # type: ignore[arg-type]
    assert seen == [{"kind": "epoch", "seed": 1}]


def test_a_new_stream_repeats_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = EVENT, EVENT.replace("1", "2")
    streams = ((first, second[:9]), (first + second[:20],), (first, second + "noi"))
    api = Client(*["RUNNING"] * 6, "SUCCEEDED", log=first + second + "noise", streams=streams)
    assert follow(monkeypatch, api) == [{"kind": "epoch", "seed": 1}, {"kind": "epoch", "seed": 2}, "noise"]


def test_a_last_line_without_its_end_counts_when_the_job_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    assert follow(monkeypatch, Client("SUCCEEDED", log=EVENT + "bye")) == [{"kind": "epoch", "seed": 1}, "bye"]


@pytest.mark.parametrize("kind", [DataError, ResourceError, DivergenceError])
def test_the_jobs_own_error_is_raised(monkeypatch: pytest.MonkeyPatch, kind: type[Exception]) -> None:
    log = f'{{"ada2i_event": "error", "error": "{kind.__name__}", "message": "It must. Correct it."}}\n'
    with pytest.raises(kind, match=r"^It must\. Correct it\.$"):
        follow(monkeypatch, Client("FAILED", log=log))


def test_the_error_of_a_job_that_dies_is_in_the_message(monkeypatch: pytest.MonkeyPatch, run_uri: str) -> None:
    with pytest.raises(
        JobError, match=r"must succeed, but ended FAILED: OOM Its log is .*job-0\.log\. Another attempt"
    ) as caught:
        follow(monkeypatch, Client("RUNNING", "FAILED", message="Traceback\n\nOOM\n"), run_uri)
    assert caught.value.retryable


def test_a_cluster_may_be_away_for_a_short_time(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Client("RUNNING", ConnectionError("away"), "SUCCEEDED", log=EVENT)
    assert follow(monkeypatch, api) == [{"kind": "epoch", "seed": 1}]


def test_a_cluster_may_be_away_at_the_very_end(monkeypatch: pytest.MonkeyPatch, run_uri: str) -> None:
    with pytest.raises(JobError, match="ended FAILED: OOM"):
        follow(monkeypatch, Client("RUNNING", "FAILED", message="OOM", away_at_the_end=True), run_uri)


def test_a_cluster_that_stays_away_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_GONE_SECONDS", -1.0)
    with pytest.raises(
        UnreachableError, match=r"job-0 must be reachable, but was not for .*: away\. Check the cluster"
    ):
        follow(monkeypatch, Client("RUNNING", ConnectionError("away")))
