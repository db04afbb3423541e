"""A real endpoint on a private Ray: it answers as `predict` does, also after a promotion or a killed replica.

Its drift windows are so large that no test fills one: the promotion and the end write them.
"""

import base64
import json
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest

from ada2i.drift import Window, windows
from ada2i.drift.windows import LIVE
from ada2i.extraction.corpora import voice
from ada2i.prediction.records import LEAST_DIALOGUES
from ada2i.registry.versions import find
from tests.served import MODEL, Calls, differs
from tests.serving import TOKEN, Server, server, wait

SECRET = "a text that no log may hold"
LIMITS = ("--limit", "body_bytes=2000000", "--limit", "text_chars=1000", "--limit", "clip_seconds=3")
WINDOWS = ("--drift-window", "1000000")


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Calls:
    return Calls(tmp_path_factory.mktemp("serving"))


@pytest.fixture(scope="module")
def running(calls: Calls) -> Iterator[Server]:
    with server(calls.root, f"{MODEL}@champion", *LIMITS, *WINDOWS, end=signal.SIGTERM) as found:
        yield found
        promoted, before = bool(kept(calls, 1)), kept(calls, 2)
    assert before == []
    assert len(kept(calls, 2)) == promoted  # the end writes the window of the version that answers


@pytest.fixture(scope="module")
def expected(calls: Calls) -> dict[str, dict[str, list[dict[str, Any]]]]:
    return {f"{MODEL}@{number}": calls.predicted(number) for number in (1, 2)}


def kept(calls: Calls, number: int) -> list[Window]:
    """Return the windows of the endpoint."""
    found = windows(calls.root, find(calls.root, MODEL, number))
    return [window for window in found if window.run_id.startswith(LIVE)]


def post(client: httpx.Client, path: str, body: Any) -> dict[str, Any]:
    answer = client.post(path, json=body)
    assert answer.is_success, answer.text
    return dict(answer.json())


def test_features_are_answered_as_predict_does(running: Server, calls: Calls, expected: Any) -> None:
    with running.client() as client:
        for call, turns in calls.vectors().items():
            found = post(client, "/predict", {"turns": turns})
            assert found["version"] == f"{MODEL}@1"
            assert differs(found["turns"], expected[found["version"]][call]) < 1e-6


def test_recordings_are_answered_as_predict_does(running: Server, calls: Calls) -> None:
    rows = calls.predicted(1, calls.raw())
    with running.client() as client:
        for call, turns in list(calls.recordings(clips=True).items())[:2]:
            found = post(client, "/predict", {"turns": turns})
            assert differs(found["turns"], rows[call]) < 1e-6


def test_a_session_is_answered_as_its_dialogue_so_far(running: Server, calls: Calls) -> None:
    turns = calls.recordings(clips=False)["call-0"]
    with running.client() as client:
        session = post(client, "/sessions", {})["session"]
        for place, turn in enumerate(turns):
            found = post(client, f"/sessions/{session}/turns", turn)
            assert found["turn"] == place
            whole = post(client, "/predict", {"turns": turns[: place + 1]})["turns"]
            assert differs([found], whole[-1:]) < 1e-6
        assert client.delete(f"/sessions/{session}").status_code == 204
        gone = client.post(f"/sessions/{session}/turns", json=turns[0])
    assert gone.status_code == 404
    assert "Open a new one, and send its turns again." in gone.json()["error"]["message"]


def sound(seconds: float, level: float = 0.3, share: float = 1.0) -> str:
    samples = level * np.sin(np.arange(round(seconds * voice.RATE)) / 20)
    data = voice.encode(samples)
    return base64.b64encode(data[: round(share * len(data))]).decode()


@pytest.mark.parametrize(
    ("turn", "status", "message"),
    [
        ({"text": "x" * 1_000_000}, 413, "must have at most 1000 characters, but has 1000000"),
        ({"text": "x" * 3_000_000}, 413, "must have at most 2000000 bytes"),
        (
            {"features": {"text": [float("nan")] * 384}},
            422,
            "`turns.0.features.text.0`: Input should be a finite number",
        ),
        ({"features": {"text": [0.0] * 3}}, 422, "must be 384 numbers, as those that tiny@"),
        ({"features": {"smell": [0.0]}}, 422, "must name modalities that tiny@"),
        ({"speaker": "A"}, 422, "but has neither"),
        ({"clip": "§"}, 422, "must be a media file in base64"),
        ({"clip": base64.b64encode(b"no media").decode()}, 422, "must hold sound that FFmpeg decodes"),
        ({"clip": sound(0.5, level=0.0)}, 422, "Sound must reach"),
        ({"clip": sound(2.0, share=0.4)}, 422, "must be complete, but ends before its declared end"),
        ({"clip": sound(4.0)}, 413, "must last at most 3 s"),
    ],
)
def test_bad_input_gets_the_usual_message(running: Server, turn: Any, status: int, message: str) -> None:
    with running.client() as client:
        found = client.post(
            "/predict", content=json.dumps({"turns": [turn]}), headers={"Content-Type": "application/json"}
        )
    assert (found.status_code, message in found.text) == (status, True), found.text
    assert found.json()["error"].keys() >= {"type", "message"}


def test_every_request_needs_the_token(running: Server, calls: Calls) -> None:
    body = {"turns": calls.vectors()["call-0"]}
    for token in ("other", TOKEN[:-1], f"{TOKEN}x"):
        with running.client(token) as client:
            found = client.post("/predict", json=body)
            assert client.get("/metrics").status_code == 401
        assert found.status_code == 401
        assert found.headers["www-authenticate"] == "Bearer"
        assert "`Authorization: Bearer TOKEN`" in found.json()["error"]["message"]
    assert httpx.get(f"{running.url}/healthz").json()["status"] == "ok"


def test_the_documented_example_is_answered(running: Server) -> None:
    with running.client() as client:
        document = client.get("/openapi.json").json()
        body = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["example"]
        assert len(post(client, "/predict", body)["turns"]) == len(body["turns"])
        assert client.get("/example").json() == body
        assert "/sessions/{session}/turns" in client.get("/docs").text


def test_metrics_count_requests(running: Server) -> None:
    with running.client() as client:
        client.get("/healthz")
        text = client.get("/metrics").text
    assert 'ada2i_serving_requests_total{path="/healthz",status="200"}' in text
    assert "ada2i_serving_sessions 0.0" in text
    assert 'ada2i_serving_batch_requests_bucket{le="1.0"}' in text
    assert f'ada2i_serving_version{{version="{MODEL}@1"}} 1.0' in text


def test_a_killed_replica_loses_only_what_it_computed(running: Server, calls: Calls, expected: Any) -> None:
    turns = calls.vectors()["call-1"]
    with running.client() as client:
        session = post(client, "/sessions", {})["session"]
        post(client, f"/sessions/{session}/turns", turns[0])
        replica = running.replica()
        replica.kill()
        replica.wait(30)
        found = again(client, f"/sessions/{session}/turns", turns[1])
        whole = again(client, "/predict", {"turns": turns})
        client.delete(f"/sessions/{session}")
    assert found["turn"] == 1
    assert differs(whole["turns"], expected[whole["version"]]["call-1"]) < 1e-6
    assert differs([found], again_rows(running, turns[:2])[-1:]) < 1e-6


def again(client: httpx.Client, path: str, body: Any) -> dict[str, Any]:
    """Send a request until it is answered; only what asks for it may be sent again."""
    while (answer := client.post(path, json=body)).status_code == 503:
        assert "Retry-After" in answer.headers
        time.sleep(float(answer.headers["Retry-After"]))
    assert answer.is_success, answer.text
    return dict(answer.json())


def again_rows(running: Server, turns: Any) -> list[dict[str, Any]]:
    with running.client() as client:
        return list(again(client, "/predict", {"turns": turns})["turns"])


def test_a_promotion_drops_no_request(running: Server, calls: Calls, expected: Any) -> None:
    requests = list(calls.vectors().items())
    stop, versions = threading.Event(), set()
    with running.client() as client:
        session = post(client, "/sessions", {})["session"]
        first = post(client, f"/sessions/{session}/turns", requests[0][1][0])

    def talk(number: int) -> int:
        count = 0
        with running.client() as client:
            while not stop.is_set():
                call, turns = requests[(number + count) % len(requests)]
                found = post(client, "/predict", {"turns": turns})
                assert differs(found["turns"], expected[found["version"]][call]) < 1e-6
                versions.add(found["version"])
                count += 1
        return count

    with ThreadPoolExecutor(20) as pool:
        clients = [pool.submit(talk, number) for number in range(20)]
        try:
            calls.promote(2, 1)
            wait(running, f"{MODEL}@2")
            time.sleep(0.5)
        finally:
            stop.set()
        assert min(client.result() for client in clients) > 0
    assert versions == {f"{MODEL}@1", f"{MODEL}@2"}
    with running.client() as client:  # a session stays on its version
        later = post(client, f"/sessions/{session}/turns", requests[0][1][1])
        assert (first["version"], later["version"]) == (f"{MODEL}@1", f"{MODEL}@1")
        deadline = time.monotonic() + 60
        while 'drift_windows_total{result="stored"} 1.0' not in client.get("/metrics").text:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        for call, turns in requests[:1] * LEAST_DIALOGUES:
            assert differs(post(client, "/predict", {"turns": turns})["turns"], expected[f"{MODEL}@2"][call]) < 1e-6
    (window,) = kept(calls, 1)
    assert window.sums[0] >= window.dialogues >= 20  # utterances


def test_no_log_holds_content(running: Server) -> None:
    with running.client() as client:
        session = post(client, "/sessions", {})["session"]
        assert client.post(f"/sessions/{session}/turns", json={"text": SECRET}).is_success
        assert client.post("/predict", json={"turns": [{"features": {SECRET: [1.0]}}]}).status_code == 422
        assert client.post("/predict", content=SECRET).status_code == 422
    files = [path for path in running.logs().rglob("*") if path.is_file()]
    assert any("serve" in str(path) for path in files)
    for path in files:
        data = path.read_bytes()
        assert [word for word in (SECRET, session, TOKEN) if word.encode() in data] == [], path


def test_a_supervisor_can_end_a_server_that_starts(calls: Calls) -> None:
    with server(calls.root, f"{MODEL}@1", end=signal.SIGTERM, answers=False) as starting:
        assert starting.process.poll() is None
