"""Code of the caller's own is checked before it is called, and bound to what the caller submitted."""

import os
from pathlib import Path
from typing import Any

import pytest

from ada2i import storage
from ada2i.errors import ConfigError, DataError, IntegrityError
from ada2i.extraction.corpora.readers import read_corpus
from ada2i.extraction.encoders.registry import load
from ada2i.extraction.job import drive
from ada2i.extraction.request import ExtractionRequest, ExtractSpec, prepare
from ada2i.jobs import events, logs
from ada2i.records import RunRequest
from ada2i.training import request as training
from ada2i.training.request import TrainSpec
from tests.unit.extraction.talks import OWN, talk

CALLED: list[str] = []


def makes_text(location: str) -> str:
    CALLED.append(location)
    return location


def says_nothing(location: str):  # type: ignore[no-untyped-def]
    return location


class Reader:
    def __init__(self, location: str) -> None:
        CALLED.append(location)


def builds_text(*, settings: str = "") -> str:
    CALLED.append(settings)
    return settings


class NoEncoder:
    def __init__(self) -> None:
        CALLED.append("built")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("os:system", "is not a Python function"),
        ("subprocess:Popen", "is not a Python function"),
        (f"{__name__}:Reader", "is not a Python function"),
        (f"{__name__}:CALLED", "is not a Python function"),
        (f"{__name__}:makes_text", "is annotated to return str"),
        (f"{__name__}:says_nothing", "returns str"),
        ("..x:Y", "is not of that form"),
        ("os:path.join", "is not of that form"),
        ("a b:c", "is not of that form"),
    ],
)
def test_what_is_no_reader_is_refused_before_it_is_called(name: str, found: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=found):
        read_corpus(name, f"touch {tmp_path}/marker")
    assert not (tmp_path / "marker").exists()
    assert not CALLED


@pytest.mark.parametrize("name", ["os:system", "subprocess:Popen", f"{__name__}:builds_text", f"{__name__}:NoEncoder"])
def test_what_is_no_encoder_is_refused_before_it_is_called(name: str, tmp_path: Path) -> None:
    settings = {"args": ["touch", f"{tmp_path}/marker"]} if name == "subprocess:Popen" else {}
    with pytest.raises(ConfigError, match="must have `info` and `encode`"):
        load(name, "text", settings=settings)
    assert not (tmp_path / "marker").exists()
    assert not CALLED


@pytest.mark.parametrize("name", ["..x:Y", "x:", ":x", "os:path.join", "os.:path"])
def test_a_name_of_another_form_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"must be package\.module:Class"):
        load(name, "text")


def hostile(data: bytes) -> bytes:
    """Return an extraction's request that names code instead, with a seal of its own."""
    request = ExtractionRequest.opened(data, "request.json")
    return request.model_copy(update={"kind": "os:system", "location": "touch marker"}).stored()


def test_a_request_that_is_replaced_after_it_was_written_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As by another process that writes each new request anew."""
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logs, "_facts", {})
    put = storage.put_if_absent

    def put_and_replace(uri: str, data: bytes) -> bool:
        done = put(uri, data)
        storage.put(uri, hostile(data))
        return done

    talk(tmp_path / "talks")
    spec = ExtractSpec(kind="folder", location=str(tmp_path / "talks"), encoders=OWN)
    monkeypatch.setattr(storage, "put_if_absent", put_and_replace)
    job = prepare(spec, root=str(tmp_path / "store"), run_id="run")
    with pytest.raises(SystemExit):
        drive(job.uri, "run-0", job.request)
    (event,) = [event for event in events.parse(capsys.readouterr().out) if isinstance(event, dict)]
    assert event["error"] == IntegrityError.__name__
    assert not os.path.exists("marker")


def test_a_resumed_job_carries_the_digest_of_what_the_caller_checked(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    talk(tmp_path / "talks")
    more: dict[str, Any] = {"root": str(tmp_path / "store"), "run_id": "run"}
    spec = ExtractSpec(kind="folder", location=str(tmp_path / "talks"), encoders=OWN)
    first = prepare(spec, **more)
    again = prepare(spec.model_copy(update={"overrides": {"workers": 1}}), **more)
    assert first.request != again.request
    assert again.request == storage.digest(storage.get(storage.join(again.uri, "request.json")))


def test_a_run_of_another_id_is_not_resumed(tmp_path: Path) -> None:
    spec, more = TrainSpec(features="demo"), {"root": str(tmp_path), "run_id": "run"}
    job = training.prepare(spec, **more)
    assert training.prepare(spec, **more) == job
    place = storage.join(job.uri, "request.json")
    request = RunRequest.load(place)
    storage.put(place, request.model_copy(update={"run_id": "elsewhere"}).stored())
    with pytest.raises(ConfigError, match="Run run must be resumed with the config"):
        training.prepare(spec, **more)
