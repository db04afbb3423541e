"""Events of a job, as they come out of its log."""

from typing import Any

import pytest

from ada2i.jobs import events

FACTS = ("time", "level")


def parsed(log: str) -> list[events.Event | str]:
    """Parse, without what every event carries."""
    found = list(events.parse(log))
    assert all(set(FACTS) <= event.keys() for event in found if isinstance(event, dict))
    return [e if isinstance(e, str) else {k: v for k, v in e.items() if k not in FACTS} for e in found]


def emitted(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def test_events_come_back_as_they_were(capsys: pytest.CaptureFixture[str]) -> None:
    events.emit("epoch", seed=3, record={"loss": 0.1 + 0.2, "name": "naïve \u2028 line"})
    events.emit("error", error="DataError", message='First.\nSecond: {"ada2i_event": {.')
    assert parsed(emitted(capsys)) == [
        {"kind": "epoch", "seed": 3, "record": {"loss": 0.1 + 0.2, "name": "naïve \u2028 line"}},
        {"kind": "error", "error": "DataError", "message": 'First.\nSecond: {"ada2i_event": {.'},
    ]


def test_one_line_per_event(capsys: pytest.CaptureFixture[str]) -> None:
    events.emit("error", message="a\nb\r\nc\x85d")
    assert emitted(capsys).count("\n") == 1


def test_rays_prefix_and_other_lines(capsys: pytest.CaptureFixture[str]) -> None:
    events.emit("started", workers=2)
    log = f"2026-01-01 INFO starting\n(RayTrainWorker pid=7, ip=10.0.0.1) {emitted(capsys)}\nbye"
    assert parsed(log) == ["2026-01-01 INFO starting", {"kind": "started", "workers": 2}, "", "bye"]


def test_a_garbled_event_is_a_line() -> None:
    assert list(events.parse('{"ada2i_event": "epo')) == ['{"ada2i_event": "epo']


def test_nothing_yields_nothing() -> None:
    assert list(events.parse("")) == []


def test_progress_is_reported_at_most_twice_a_second_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    reports: list[dict[str, Any]] = []
    progress = events.Progress(lambda kind, **facts: reports.append({"kind": kind, **facts}), 20, before=4, part="a")
    for seconds in (1.0, 0.1, 0.1, 0.8):
        now[0] += seconds
        progress.add(4, more=seconds)
    assert reports == [
        {"kind": "progress", "part": "a", "done": 8, "total": 20, "per_second": 4.0, "seconds_left": 3, "more": 1.0},
        {"kind": "progress", "part": "a", "done": 20, "total": 20, "per_second": 8.0, "seconds_left": 0, "more": 0.8},
    ]
