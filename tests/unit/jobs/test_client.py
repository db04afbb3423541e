"""Following a job to its end, against a made-up Jobs API."""

import sys
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
    """A job that goes through some states, each with its log so far."""

    def __init__(self, *states: tuple[str, str] | Exception, message: str = "", away_at_the_end: bool = False) -> None:
        self.states = list(states)
        self.message = message
        self.away_at_the_end = away_at_the_end

    def get_job_status(self, _submission: str) -> Status:
        state = self.states[0]
        if isinstance(state, Exception):
            self.states.pop(0)
            raise state
        return Status(state[0])

    def get_job_logs(self, _submission: str) -> str:
        state = self.states.pop(0)
        assert isinstance(state, tuple)
        return state[1]

    def get_job_info(self, _submission: str) -> SimpleNamespace:
        if self.away_at_the_end:
            self.away_at_the_end = False
            self.states.append(("FAILED", ""))
            raise ConnectionError("away")
        return SimpleNamespace(message=self.message)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(client, "_POLL_SECONDS", 0.0)
    monkeypatch.setattr(sys.modules[__name__], "RUN", tmp_path.as_uri())


RUN = ""  # the folder of the run whose job is followed


def follow(api: Any) -> list[Any]:
    seen: list[Any] = []
    client._follow(api, "job-0", RUN, seen.append)
    return seen


def test_each_event_comes_once_and_whole() -> None:
    half = EVENT[:20]
    seen = follow(
        Client(("RUNNING", half), ("RUNNING", EVENT), ("RUNNING", EVENT + "noise"), ("SUCCEEDED", EVENT + "noise\n"))
    )
    assert seen == [{"kind": "epoch", "seed": 1}, "noise"]


def test_a_last_line_without_its_end_counts_when_the_job_is_over() -> None:
    assert follow(Client(("SUCCEEDED", EVENT + "bye"))) == [{"kind": "epoch", "seed": 1}, "bye"]


@pytest.mark.parametrize("kind", [DataError, ResourceError, DivergenceError])
def test_the_jobs_own_error_is_raised(kind: type[Exception]) -> None:
    log = f'{{"ada2i_event": "error", "error": "{kind.__name__}", "message": "It must. Mend it."}}\n'
    with pytest.raises(kind, match=r"^It must\. Mend it\.$"):
        follow(Client(("FAILED", log)))


def test_a_job_that_dies_says_its_last_words() -> None:
    with pytest.raises(
        JobError, match=r"must succeed, but ended FAILED: OOM Its log is .*job-0\.log\. Another attempt"
    ) as caught:
        follow(Client(("RUNNING", ""), ("FAILED", ""), message="Traceback\n\nOOM\n"))
    assert caught.value.retryable


def test_a_short_silence_is_borne() -> None:
    assert follow(Client(("RUNNING", ""), ConnectionError("away"), ("SUCCEEDED", EVENT))) == [
        {"kind": "epoch", "seed": 1}
    ]


def test_a_silence_at_the_very_end_is_borne() -> None:
    with pytest.raises(JobError, match="ended FAILED: OOM"):
        follow(Client(("RUNNING", ""), ("FAILED", ""), message="OOM", away_at_the_end=True))


def test_a_long_silence_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_GONE_SECONDS", -1.0)
    with pytest.raises(UnreachableError, match=r"job-0 must be in reach, but was not for .*: away\. Check the cluster"):
        follow(Client(("RUNNING", ""), ConnectionError("away")))
