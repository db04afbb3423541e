"""S3 that goes away and comes back: calls made meanwhile are late, and nothing else."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ada2i import storage
from ada2i.errors import AccessError, UnreachableError
from ada2i.storage import retry
from ada2i.storage.s3 import client_for
from infra import stack as local
from infra.stack import Stack
from tests.runs import start_again, stored
from tests.s3 import own_s3

pytestmark = [pytest.mark.integration, pytest.mark.soak]

SECONDS = 6.0


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """An S3 server of this module's own, which this process's environment names."""
    with own_s3(tmp_path_factory.mktemp("outage") / "stack") as running:
        yield running


@contextmanager
def outage(stack: Stack, seconds: float) -> Iterator[None]:
    """Kill the S3 server, and start it again on the same data after some seconds; the block runs meanwhile."""
    os.kill(stack.running["s3"].pid, signal.SIGKILL)
    while stack.alive("s3"):
        time.sleep(0.01)
    with ThreadPoolExecutor(1) as pool:
        back = pool.submit(_back, stack, seconds)
        try:
            yield
        finally:
            back.result()


def _back(stack: Stack, seconds: float) -> None:
    time.sleep(seconds)
    start_again(stack, names=("s3",), deploy=False)


ROOT = "s3://ada2i/outage"
CALLS: dict[str, tuple[Callable[[], Any], Any]] = {
    "get": (lambda: storage.get(f"{ROOT}/old"), b"old"),
    "put": (lambda: storage.put(f"{ROOT}/put", b"new"), None),
    "put_if_absent, absent": (lambda: storage.put_if_absent(f"{ROOT}/absent", b"new"), True),
    "put_if_absent, present": (lambda: storage.put_if_absent(f"{ROOT}/old", b"new"), False),
    "exists": (lambda: storage.exists(f"{ROOT}/old"), True),
    "children": (lambda: storage.children(f"{ROOT}/folder"), ["a"]),
    "age": (lambda: storage.age(f"{ROOT}/folder") < 3600, True),
    "delete": (lambda: storage.delete(f"{ROOT}/gone"), None),
    "delete_folder": (lambda: storage.delete_folder(f"{ROOT}/gone-too"), None),
}


def bear(stack: Stack, seconds: float) -> dict[str, Any]:
    """Make every kind of call during an outage; return their answers."""
    for name in ("old", "folder/a", "gone", "gone-too/a"):
        storage.put(f"{ROOT}/{name}", b"old")
    with ThreadPoolExecutor(len(CALLS)) as pool, outage(stack, seconds):
        wanted = {name: pool.submit(call) for name, (call, _) in CALLS.items()}
        return {name: answer.result() for name, answer in wanted.items()}


def test_every_call_bears_an_outage(s3: Stack) -> None:
    assert bear(s3, SECONDS) == {name: expected for name, (_, expected) in CALLS.items()}
    assert stored(ROOT) == ["absent", "folder/a", "old", "put"]
    assert storage.get(f"{ROOT}/old") == b"old"


def test_a_server_that_never_answered_is_reported_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "fake")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "fake")
    monkeypatch.setattr(retry, "_FIRST_RETRY_S", 1.0)
    begun = time.monotonic()
    with pytest.raises(UnreachableError, match=r"must be reachable at http://127\.0\.0\.1:9"):
        storage.get("s3://bucket/key")
    assert time.monotonic() - begun < 20


def test_refused_credentials_are_not_tried_again(s3: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    client_for.cache_clear()
    begun = time.monotonic()
    with pytest.raises(AccessError, match=r"refused the S3 credentials"):
        storage.put("s3://ada2i/key", b"")
    assert time.monotonic() - begun < 20
    client_for.cache_clear()


def by_hand(seconds: float, folder: Path) -> float:
    """Bear a longer outage than tests have time for; return how long it took."""
    running = local.start(folder, names=("s3",), deploy=False, preferred_ports=False)
    try:
        os.environ.update({k: v for k, v in running.environment().items() if k.startswith("AWS_")})
        begun = time.monotonic()
        assert bear(running, seconds) == {name: expected for name, (_, expected) in CALLS.items()}
        return time.monotonic() - begun
    finally:
        local.stop(folder)
        running.reap()
