"""A killed worker, driver or flow costs time only: shards and all other files equal those of an undisturbed run."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from ada2i import storage
from ada2i.data.manifest import open_features, read_shard
from ada2i.extraction.corpora.demo import write_demo_media
from ada2i.extraction.request import JOB, RESULT, ExtractionResult, ExtractSpec, prepare
from ada2i.jobs import client
from ada2i.jobs.events import Event
from infra.stack import Stack
from pipelines import extract as flows
from pipelines.hooks import Follower
from tests.runs import dashboard, gone, job_of
from tests.unit.extraction.talks import contents

pytestmark = pytest.mark.integration

# Long enough to be interrupted; all four extractions are of the same corpus, each into a root of its own.
SETTINGS = {"media.frames_per_second": 8, "chunk.visual": 1, "chunk.text": 8}
ENCODERS: Any = {"text": "minilm", "audio": "none", "visual": "efficientnet-lite0"}


@pytest.fixture(scope="module")
def address(stack: Stack) -> str:
    return stack.environment()["RAY_API_SERVER_ADDRESS"]


@pytest.fixture(scope="module")
def corpus(root: str) -> str:
    return write_demo_media(f"{root}-talks", dialogues=8)


def extract(corpus: str, root: str, address: str, on_event: Callable[[Event | str], None]) -> ExtractionResult:
    spec = ExtractSpec(kind="folder", location=corpus, encoders=ENCODERS, overrides=SETTINGS)
    uri = prepare(spec, root=root, run_id=root.rsplit("/", 1)[1]).uri
    client.run(job_of(uri, JOB), address=address, on_event=on_event)
    return ExtractionResult.load(storage.join(uri, RESULT))


@pytest.fixture(scope="module")
def undisturbed(corpus: str, root: str, address: str) -> dict[str, bytes]:
    seen: list[Any] = []
    result = extract(corpus, f"{root}-undisturbed", address, seen.append)
    reported = [event["kind"] for event in seen if isinstance(event, dict)]
    assert reported[:2] == ["started", "planned"]
    assert set(reported[2:]) == {"progress"}
    features = open_features(result.features)
    table = read_shard(features, features.manifest.shards[0])
    assert features.manifest.widths == {"text": 384, "visual": 1280}
    assert table["text_feat"].null_count == 0
    assert storage.children(f"{root}-undisturbed/extraction/files") != []  # S3's ETags are stamps
    return contents(result.features)


def worker_pids() -> list[int]:
    actors = dashboard("/api/v0/actors?detail=1&limit=1000")["data"]["result"]["result"]
    return [int(actor["pid"]) for actor in actors if actor["class_name"] == "Host" and actor["state"] == "ALIVE"]


class KillOnce:
    """An event listener that kills one process, with SIGKILL, once some vectors are made."""

    def __init__(self, pid: Callable[[], int]) -> None:
        self.pid = pid
        self.killed: int | None = None

    def __call__(self, event: Event | str) -> None:
        """Take one event."""
        if isinstance(event, dict) and event["kind"] == "progress" and self.killed is None:
            assert event["done"] < event["total"]
            self.killed = self.pid()
            os.kill(self.killed, signal.SIGKILL)


def test_killed_worker(corpus: str, root: str, address: str, undisturbed: dict[str, bytes]) -> None:
    killer = KillOnce(lambda: worker_pids()[0])
    result = extract(corpus, f"{root}-worker", address, killer)
    assert killer.killed is not None
    assert gone(killer.killed)
    assert contents(result.features) == undisturbed


def test_killed_driver_through_the_flows_retry(
    corpus: str, root: str, address: str, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    api = client.connect(address)

    def driver_pid() -> int:
        (job,) = [job for job in api.list_jobs() if not job.status.is_terminal()]
        assert job.driver_info is not None
        return int(job.driver_info.pid)

    killer, follow = KillOnce(driver_pid), Follower.__call__

    def follow_and_kill(self: Follower, event: Event | str) -> None:
        follow(self, event)
        killer(event)

    monkeypatch.setattr(Follower, "__call__", follow_and_kill)
    features = flows.extract_features("folder", corpus, **ENCODERS, overrides=SETTINGS, root=f"{root}-driver")
    assert killer.killed is not None
    assert contents(features) == undisturbed
    (run,) = storage.children(storage.join(f"{root}-driver", "extraction", "runs"))
    work = ExtractionResult.load(storage.join(f"{root}-driver", "extraction", "runs", run, RESULT)).work
    assert work["visual"].reused > 0  # what the first attempt wrote
    assert work["visual"].encoded > 0


@pytest.fixture
def killed_flow(corpus: str, root: str, undisturbed: dict[str, bytes]) -> str:
    """The root of a flow that was killed as it was extracting."""
    place = f"{root}-flow"
    call = f"extract_features('folder', {corpus!r}, **{ENCODERS!r}, overrides={SETTINGS!r}, root={place!r})"
    flow = subprocess.Popen([sys.executable, "-c", f"from pipelines.extract import extract_features; {call}"])
    vectors, deadline = storage.join(place, "extraction", "vectors"), time.monotonic() + 120
    while not any(storage.children(storage.join(vectors, encoder)) for encoder in storage.children(vectors)):
        assert flow.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
    flow.kill()
    flow.wait()
    return place


def test_killed_flow(killed_flow: str, corpus: str, undisturbed: dict[str, bytes]) -> None:
    assert storage.children(storage.join(killed_flow, "features")) == []
    features = flows.extract_features("folder", corpus, **ENCODERS, overrides=SETTINGS, root=killed_flow)
    assert contents(features) == undisturbed
