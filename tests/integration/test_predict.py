"""Predictions on the session's cluster and S3: as registered, the same bytes after a killed worker, by flow as well."""

import os
import signal
import time
from typing import Any

import pytest

from ada2i import storage
from ada2i.data.manifest import open_features
from ada2i.importers.demo import write_demo_corpus
from ada2i.jobs import client
from ada2i.jobs.events import Event
from ada2i.prediction.records import DONE, MANIFEST, REQUEST, PredictionManifest, PredictionRequest
from ada2i.prediction.request import JOB, PredictSpec, prepare
from ada2i.records import RunResult
from ada2i.registry.versions import find, read_file
from infra.stack import Stack
from pipelines.predict import predict_emotions
from tests.integration.test_train import run_cli
from tests.runs import dashboard, gone, job_of

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def home(stack: Stack, root: str) -> str:
    """A root with a version that was trained on the demo corpus."""
    place = f"{root}-predict"
    with pytest.MonkeyPatch.context() as patch:
        options = ["--seeds", "1", "--set", "training.epochs=2", "--workers", "1", "--model", "talk", "--root", place]
        run_cli(patch, "train", "demo", *options)
    return place


def test_scores_are_those_registered(
    home: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_cli(monkeypatch, "predict", "talk@1", "demo", "--split", "test", "--root", home, "--json")
    manifest = PredictionManifest.model_validate_json(capsys.readouterr().out)
    version = find(home, "talk")
    registered = RunResult.model_validate_json(read_file(home, version, "result.json"))
    best = next(test for test in registered.tests if test.seed == registered.best_seed)
    assert manifest.scores == (best.scores,)


def test_a_killed_worker_changes_no_byte(home: str) -> None:
    features = open_features(write_demo_corpus(f"{home}-many", dialogues=600))
    address, found = os.environ["RAY_API_SERVER_ADDRESS"], []
    for out, kill in ((f"{home}-whole", False), (f"{home}-killed", True)):
        uri = prepare(PredictSpec(version="talk", source=features.uri, out=out, workers=2), root=home).uri
        killer = Killer(kill=kill)
        client.run(job_of(uri, JOB), address=address, on_event=killer)
        assert (killer.killed is not None) == kill
        assert killer.killed is None or gone(killer.killed)
        request = PredictionRequest.load(storage.join(uri, REQUEST))
        manifest = PredictionManifest.load(storage.join(request.out, MANIFEST))
        found.append({name: storage.get(storage.join(request.out, name)) for name in manifest.files})
        assert REQUEST in storage.children(uri)
        assert storage.children(storage.join(uri, DONE)) == []
    assert len(found[0]) > 1
    assert found[0] == found[1]


class Killer:
    """An event listener that kills a worker, with SIGKILL, once the shards are handed out."""

    def __init__(self, *, kill: bool) -> None:
        self.kill = kill
        self.killed: int | None = None

    def __call__(self, event: Event | str) -> None:
        if isinstance(event, dict) and event["kind"] == "planned" and self.kill:
            deadline = time.monotonic() + 60
            while not (alive := workers()):
                assert time.monotonic() < deadline
                time.sleep(0.1)
            self.killed = alive[0]
            os.kill(self.killed, signal.SIGKILL)


def workers() -> list[int]:
    """Return the process ids of live workers."""
    actors = dashboard("/api/v0/actors?detail=1&limit=1000")["data"]["result"]["result"]
    return [int(a["pid"]) for a in actors if a["class_name"] == "Host" and a["state"] == "ALIVE" and a["pid"]]


@pytest.mark.smoke
def test_the_flow_predicts(home: str) -> None:
    place = predict_emotions("talk@1", "demo", split="test", root=home)
    manifest: Any = PredictionManifest.load(storage.join(place, MANIFEST))
    assert manifest.utterances == manifest.scores[0].utterances
