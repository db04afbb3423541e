"""Submitting a job, against a made-up Jobs API: which requests are made, and which Python runs it."""

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import ray

from ada2i.errors import ConfigError, JobError
from ada2i.jobs import client
from ada2i.jobs.nodes import interpreter
from ada2i.jobs.resources import check_root
from ada2i.jobs.versions import versions
from tests.unit.doctor.servers import Answer, serving


class Cluster:
    """The HTTP side of a cluster with jobs that have ended; a list of all jobs is refused."""

    def __init__(self, *jobs: str, host: str = "elsewhere", python: str = "", log: str = "", message: str = "") -> None:
        self.jobs: dict[str, str] = dict.fromkeys(jobs, "FAILED")
        self.host, self.python = host, python
        self.log, self.message = log, message
        self.requests: list[str] = []
        self.submitted: list[dict[str, Any]] = []

    def __call__(self, method: str, path: str, body: bytes, _: dict[str, str]) -> Answer:
        self.requests.append(f"{method} {path}")
        if path == "/api/version":
            return 200, {"ray_version": ray.__version__, "version": "4", "ray_commit": "", "session_name": "s"}
        if path == "/nodes?view=summary":
            return 200, {"data": {"summary": self._nodes()}}
        if method == "POST":
            self.submitted.append(json.loads(body))
            name = self.submitted[-1].get("submission_id") or "probe"
            self.jobs[name] = "FAILED" if self.message else "SUCCEEDED"
            return 200, {"job_id": name, "submission_id": name}
        name, what = (path.removeprefix("/api/jobs/") + "/").split("/")[:2]
        if name not in self.jobs:
            return 404, b"Job does not exist." if name else b"all jobs were listed"
        if method == "DELETE":
            del self.jobs[name]
            return 200, {"deleted": True}
        return 200, {"logs": self.log} if what else self._job(name)

    def _nodes(self) -> list[dict[str, Any]]:
        command = [f"--python_worker_command={self.python} /x/setup_worker.py --more"] if self.python else []
        raylet = {"state": "ALIVE", "nodeManagerHostname": self.host, "isHeadNode": True}
        return [
            {"raylet": raylet, "cmdline": ["/x/raylet", *command]},
            {"raylet": {"state": "DEAD", "nodeManagerHostname": "gone", "isHeadNode": False}},
        ]

    def _job(self, name: str) -> dict[str, Any]:
        facts = {"type": "SUBMISSION", "submission_id": name, "entrypoint": "x", "message": self.message}
        return {**facts, "status": self.jobs[name], "job_id": None}


def submitted(cluster: Cluster) -> str:
    with serving(cluster) as url:
        return client.submit(client.Job("x:y", "s3://b/runs/night", "0"), url)


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_MONITOR_SECONDS", 0.0)  # this cluster has no monitor
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_API_SERVER_ADDRESS", "ADA2I_SHARED_ROOT"):
        monkeypatch.delenv(name, raising=False)


def test_submitting_asks_for_the_runs_own_attempts_only() -> None:
    cluster = Cluster("night-0", "night-1", *(f"other-{n}" for n in range(100)))
    assert submitted(cluster) == "night-2"
    assert [path for path in cluster.requests if path.startswith("GET /api/jobs")] == [
        f"GET /api/jobs/night-{n}" for n in range(3)
    ]


def test_a_running_attempt_is_joined() -> None:
    cluster = Cluster("night-0", "night-1")
    cluster.jobs["night-1"] = "RUNNING"
    assert submitted(cluster) == "night-1"
    assert cluster.submitted == []


def run_there(cluster: Cluster, folder: Path, **variables: str) -> str:
    """Run a submitted entrypoint as the head does, with programs that print their own names."""
    submitted(cluster)
    (folder / "bin").mkdir()
    for program in ("bin/python", "venv-python", "own-python"):
        (folder / program).write_text(f'#!/bin/sh\necho {program} "$@"\n')
        (folder / program).chmod(0o755)
    environment = {"PATH": f"{folder / 'bin'}:/usr/bin:/bin", **variables}
    command = cluster.submitted[-1]["entrypoint"]
    done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split(" -m ")[0]


def test_through_a_loopback_port_the_interpreter_of_the_head_runs_the_job(tmp_path: Path) -> None:
    # The port may be a tunnel's, so this process's own interpreter need not exist there.
    assert run_there(Cluster(python=f"{tmp_path}/venv-python"), tmp_path) == "venv-python"


def test_the_heads_variable_comes_first(tmp_path: Path) -> None:
    cluster = Cluster(python=f"{tmp_path}/venv-python")
    assert run_there(cluster, tmp_path, ADA2I_PYTHON=f"{tmp_path}/own-python") == "own-python"


@pytest.mark.parametrize("python", ["", "$(touch x)", "/x; rm y"])
def test_a_head_that_does_not_say_runs_python_of_its_path(tmp_path: Path, python: str) -> None:
    assert run_there(Cluster(python=python), tmp_path) == "bin/python"


def test_a_cluster_that_does_not_answer_is_no_error_of_the_interpreter() -> None:
    assert interpreter("http://127.0.0.1:9") == '"${ADA2I_PYTHON:-python}"'


def test_versions_come_from_a_job_that_leaves_no_trace() -> None:
    cluster = Cluster(log=f"{json.dumps({'ada2i_event': 'versions', **versions(), 'python': '3.11.2'})}\n")
    with serving(cluster) as url:
        found = client.versions(url)
    assert found["python"] == ("3.11.2", versions()["python"])
    assert found["ray"] == (ray.__version__, ray.__version__)
    assert cluster.jobs == {}


def test_the_reason_of_a_job_that_does_not_start_is_in_the_message() -> None:
    log = "Running entrypoint for job probe: python -m x\n/bin/sh: 1: python: not found\n"
    said = f"Job entrypoint command failed with exit code 127, last available logs (truncated to 20,000 chars):\n{log}"
    with (
        serving(Cluster(log=log, message=said)) as url,
        pytest.raises(JobError, match="FAILED: /bin/sh: 1: python: not"),
    ):
        client.versions(url)


def root_of(url: str, monkeypatch: pytest.MonkeyPatch, root: str) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", url)
    check_root(root)


def test_a_folder_is_no_root_for_another_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with serving(Cluster()) as url:
        with pytest.raises(ConfigError, match=r"folder of this machine .* run on elsewhere\. Choose an S3 root"):
            root_of(url, monkeypatch, tmp_path.as_uri())
        root_of(url, monkeypatch, "s3://bucket/x")
        monkeypatch.setenv("ADA2I_SHARED_ROOT", "1")
        root_of(url, monkeypatch, tmp_path.as_uri())


def test_a_cluster_on_this_machine_may_use_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with serving(Cluster(host=socket.gethostname())) as url:
        root_of(url, monkeypatch, tmp_path.as_uri())
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS")
    assert "RAY_API_SERVER_ADDRESS" not in os.environ
    check_root(tmp_path.as_uri())
