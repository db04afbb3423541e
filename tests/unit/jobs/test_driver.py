"""The entry point of jobs: which ones it starts, and how their errors reach their followers."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from ada2i.errors import DataError, DivergenceError, InputError, UnreachableError
from ada2i.extraction.request import JOB as EXTRACTION
from ada2i.jobs import client, driver, events, logs
from ada2i.prediction.request import JOB as PREDICTION
from ada2i.search.request import JOB as SEARCH
from ada2i.studies.request import JOB as STUDY
from ada2i.training.launch import JOB as TRAINING


def test_the_jobs_of_all_packages_are_known() -> None:
    assert {EXTRACTION, PREDICTION, SEARCH, STUDY, TRAINING} == set(driver.JOBS)
    for name in driver.JOBS:
        module, _, function = name.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("name", ["os:system", "ada2i.training.launch:work", "ada2i.training.launch", ""])
def test_nothing_else_is_started(name: str) -> None:
    with pytest.raises(InputError, match=r"A job must be one of ada2i.* Submit one of these"):
        driver.main(name, "s3://b/runs/r1", "r1-0", "0")


@pytest.mark.parametrize("name", driver.JOBS)
def test_every_job_refuses_another_request_than_the_submitted_one(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_facts", {})
    monkeypatch.setattr(ray, "init", lambda: pytest.fail("the job went on"))
    (tmp_path / "request.json").write_text('{"kind": "os:system", "location": "id"}')
    with pytest.raises(SystemExit):
        driver.main(name, tmp_path.as_uri(), "run-0", "ab" * 32)
    event = next(event for event in events.parse(capsys.readouterr().out) if isinstance(event, dict))
    assert event["error"] == "IntegrityError"
    assert "request.json must be the request that was submitted, with SHA-256 abababababababab..." in event["message"]


def test_a_submitted_job_carries_the_digest_of_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    submitted: list[str] = []

    class Api:
        def get_job_info(self, _: str) -> object:
            raise RuntimeError("Request failed with status code 404: Job run-0 does not exist.")

        def submit_job(self, *, entrypoint: str, **_: object) -> str:
            submitted.append(entrypoint)
            return "run-0"

    monkeypatch.setattr(client, "connect", lambda _: Api())
    client.submit(client.Job(TRAINING, "s3://b/runs/run", "ab" * 32), "http://127.0.0.1:1")
    assert submitted[0].endswith(f"ada2i.jobs.driver {TRAINING} s3://b/runs/run run-0 {'ab' * 32}")


def test_an_error_of_this_package_is_found_in_what_ray_raised() -> None:
    ours = DivergenceError("It broke.")
    wrapped = RuntimeError("worker failed")
    wrapped.__cause__ = ours
    by_worker = RuntimeError("workers failed")
    by_worker.worker_failures = {1: SimpleNamespace(cause=ours)}  # type: ignore[attr-defined]
    assert [driver.cause(problem) for problem in (ours, wrapped, by_worker)] == [ours] * 3
    assert driver.cause(RuntimeError("theirs")) is None
    assert driver.cause(UnreachableError("down")) is not None


def test_errors_are_reported_to_followers(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_facts", {})
    with pytest.raises(SystemExit) as end, driver.report_errors("s3://b/runs/r1"):
        raise DataError("It must. Correct it.")
    assert end.value.code == 2
    (event,) = events.parse(capsys.readouterr().out)
    assert isinstance(event, dict)
    assert event.pop("time")
    facts = {"kind": "error", "level": "error", "run_id": "r1", "error": "DataError", "message": "It must. Correct it."}
    assert event == facts
    with pytest.raises(RuntimeError, match="theirs"), driver.report_errors("s3://b/runs/r1"):
        raise RuntimeError("theirs")
