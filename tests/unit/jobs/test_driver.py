"""Our own error in what Ray raises, and what becomes of it."""

from types import SimpleNamespace

import pytest

from ada2i.errors import DataError, DivergenceError, UnreachableError
from ada2i.jobs import driver, events, logs


def test_our_own_error_is_found_in_what_ray_raised() -> None:
    ours = DivergenceError("It broke.")
    wrapped = RuntimeError("worker failed")
    wrapped.__cause__ = ours
    by_worker = RuntimeError("workers failed")
    by_worker.worker_failures = {1: SimpleNamespace(cause=ours)}  # type: ignore[attr-defined]
    assert [driver.cause(problem) for problem in (ours, wrapped, by_worker)] == [ours] * 3
    assert driver.cause(RuntimeError("theirs")) is None
    assert driver.cause(UnreachableError("down")) is not None


def test_followers_are_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_facts", {})

    def fail() -> None:
        raise DataError("It must. Mend it.")

    def fail_otherwise() -> None:
        raise RuntimeError("theirs")

    assert driver.run(lambda: None, "s3://b/runs/r1") == 0
    assert driver.run(fail, "s3://b/runs/r1") == 2
    told = list(events.parse(capsys.readouterr().out))
    (event,) = told
    assert isinstance(event, dict)
    assert event.pop("time")
    wanted = {"kind": "error", "level": "error", "run_id": "r1", "error": "DataError", "message": "It must. Mend it."}
    assert event == wanted
    with pytest.raises(RuntimeError, match="theirs"):
        driver.run(fail_otherwise, "s3://b/runs/r1")
