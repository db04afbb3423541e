"""Lines of a process: plain, or one JSON object each, with the run that they are about."""

import json
import logging
from collections.abc import Iterator

import pytest

from ada2i.errors import ConfigError
from ada2i.jobs import events, logs


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(logs.FORMAT, raising=False)
    monkeypatch.setattr(logs, "_facts", {})
    ours = logging.getLogger("ada2i")
    level = ours.level
    yield
    ours.setLevel(level)


def line(message: str, **facts: object) -> dict[str, object]:
    record = logging.LogRecord("ada2i.x", logging.WARNING, __file__, 1, message, (), None)
    record.facts = facts
    found: dict[str, object] = json.loads(logs._JsonLines().format(record))
    return found


def test_a_line_is_one_object_with_the_run() -> None:
    logs.configure(run_id="r1", rank=1)
    found = line("two\nlines")
    assert str(found.pop("time")).endswith("+00:00")
    assert found == {"level": "warning", "event": "two\nlines", "logger": "ada2i.x", "run_id": "r1", "rank": 1}


def test_facts_of_an_event_win() -> None:
    logs.configure(run_id="mine")
    found = line("epoch", kind="epoch", run_id="theirs", time="then", seed=3)
    assert (found["run_id"], found["time"], found["seed"], found["event"]) == ("theirs", "then", 3, "epoch")
    assert "kind" not in found


def test_a_traceback_stays_in_its_line() -> None:
    try:
        raise ValueError("broken")  # noqa: TRY301
    except ValueError as problem:
        record = logging.LogRecord("ada2i", logging.ERROR, __file__, 1, "no", (), (ValueError, problem, None))
    text = logs._JsonLines().format(record)
    assert "\n" not in text
    assert json.loads(text)["traceback"].endswith("ValueError: broken")


def test_events_carry_time_and_run(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(run_id="r1")
    events.emit("epoch", seed=2)
    reported = json.loads(capsys.readouterr().out)
    assert (reported["ada2i_event"], reported["run_id"], reported["level"], reported["seed"]) == (
        "epoch",
        "r1",
        "info",
        2,
    )
    assert reported["time"]


def test_the_format_travels_and_silences_what_is_for_people(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert logs.environment() == {}
    logs.notes().print("hello")
    monkeypatch.setenv(logs.FORMAT, "json")
    assert logs.environment() == {"ADA2I_LOG_FORMAT": "json"}
    logs.notes().print("again")
    assert capsys.readouterr().err == "hello\n"


def test_another_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(logs.FORMAT, "xml")
    with pytest.raises(ConfigError, match="ADA2I_LOG_FORMAT must be `plain` or `json`, but is 'xml'"):
        logs.configure()
