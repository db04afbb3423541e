"""A server of `ada2i serve` in a process of its own, for tests and benchmarks."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from ada2i.jobs.cluster import free_port
from tests.runs import until

TOKEN = "token-of-the-tests-0123456789abcdef"
_START_SECONDS = 180.0


@dataclass
class Server:
    """A server that answers.

    Attributes:
        url: Its URL.
        process: Its process.
    """

    url: str
    process: "subprocess.Popen[bytes]"

    def client(self, token: str = TOKEN) -> httpx.Client:
        """Return a client that sends a token."""
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {token}"}, timeout=60)

    def children(self, name: str = "") -> list[psutil.Process]:
        """Return its processes whose command begins with a name."""
        return [
            child
            for child in psutil.Process(self.process.pid).children(recursive=True)
            if child.is_running() and " ".join(_command(child)).startswith(name)
        ]

    def replica(self) -> psutil.Process:
        """Return the process of a model replica."""
        return self.children("ray::ServeReplica:ada2i:Replica")[0]

    def logs(self) -> Path:
        """Return the folder of Ray, which holds all logs."""
        options = [option for child in self.children() for option in _command(child)]
        return Path(next(o for o in options if o.startswith("--temp-dir=")).partition("=")[2])


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


@contextmanager
def server(
    root: str,
    version: str,
    *options: str,
    end: signal.Signals = signal.SIGINT,
    answers: bool = True,
    **environment: str,
) -> Iterator[Server]:
    """Start `ada2i serve`, and yield once it answers, or else once Ray Serve starts; end it by a signal.

    Its end must leave no process and no file of Ray.
    """
    port = free_port()
    command = [sys.executable, "-m", "ada2i", "serve", version, "--port", str(port), "--root", root, *options]
    foreign = ("PREFECT_", "RAY_", "ADA2I_")
    clean: dict[str, Any] = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    clean |= {"ADA2I_SERVE_TOKEN": TOKEN, "PYTHONFAULTHANDLER": "1"}
    process = subprocess.Popen(command, env=clean | environment)
    found = Server(f"http://127.0.0.1:{port}", process)
    try:
        if answers:
            wait(found)
        else:
            until(lambda: found.children("ray::ServeController"), "Ray Serve", _START_SECONDS, every=0.05)
        yield found
        folder, children = found.logs(), found.children()
    finally:
        process.send_signal(end)
        _wait_for_end(process)
    assert process.returncode == 0
    assert [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE] == []
    assert not folder.exists()


def _wait_for_end(process: "subprocess.Popen[bytes]") -> None:
    """Wait until a server has ended, which takes some 10 s; print where its threads are if it does not end."""
    try:
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        process.wait(timeout=60)
        raise


def wait(found: Server, version: str = "") -> None:
    """Wait until a server answers, with a version if one is named."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        assert found.process.poll() is None
        try:
            answer = httpx.get(f"{found.url}/healthz", timeout=10)
        except httpx.TransportError:
            answer = None
        if (
            answer is not None
            and answer.status_code == 200
            and answer.json()["version"] == (version or answer.json()["version"])
        ):
            return
        time.sleep(0.2)
    raise TimeoutError(f"{found.url} does not answer.")
