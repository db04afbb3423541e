"""The local stack: secrets, listeners, deployment, and what a stop leaves."""

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ada2i import storage
from ada2i.errors import ResourceError
from ada2i.jobs import client, cluster, http, processes
from infra import certificates, local, services
from infra import stack as stacks
from infra.stack import Stack
from tests.ports import answers, listening

pytestmark = pytest.mark.integration


def ask_prefect(stack: Stack, path: str, body: dict[str, Any]) -> Any:
    auth = base64.b64encode(stack.layout.prefect_auth.read_bytes()).decode()
    url = f"{stack.environment()['PREFECT_API_URL']}/{path}"
    status, answer = http.request(
        url, {"Authorization": f"Basic {auth}"}, method="POST", body=json.dumps(body).encode()
    )
    assert status in (200, 201), answer
    return json.loads(answer)


def listeners(stack: Stack) -> dict[int, str]:
    """Port to address, in the kernel's hex, of all that the stack's processes listen on."""
    members = {member.pid for process in stack.running.values() for member in processes._family(process)}
    inodes = {os.readlink(link) for pid in members for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    return {port: address for port, (address, inode) in listening().items() if f"socket:[{inode}]" in inodes}


@pytest.mark.parametrize(
    ("service", "path", "refusal"),
    [
        ("s3", "/ada2i", 403),
        ("prefect", "/api/admin/version", 401),
        ("ray", "/api/jobs/", 401),
    ],
)
def test_nothing_answers_without_its_secret(stack: Stack, service: str, path: str, refusal: int) -> None:
    assert http.request(f"{stack.layout.address(service)}{path}", {})[0] == refusal


@pytest.mark.parametrize("own", [False, True], ids=["without a certificate", "with a certificate of one's own"])
def test_no_port_of_the_s3_server_does_anything_without_its_certificate(
    storage_only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    alone = stacks.start(storage_only, names=["s3"], deploy=False, preferred_ports=False)
    for name, value in alone.environment().items():
        monkeypatch.setenv(name, value)
    storage.put("s3://ada2i/kept", b"kept" * 1_000_000)
    ports = listeners(alone)
    inner = {alone.layout.ports[part] + more for part in ("master", "volume", "filer") for more in (0, 10_000)}
    assert inner <= set(ports)
    certificates.make(tmp_path)
    found = {port: list(answers("127.0.0.1", port, tmp_path if own else None)) for port in ports}
    health = [("http /status", 200)]  # of S3 itself, which says only that it runs
    assert {port: answered for port, answered in found.items() if answered} == {alone.layout.ports["s3"]: health}
    assert storage.get("s3://ada2i/kept") == b"kept" * 1_000_000
    stacks.stop(storage_only)
    alone.reap()


def test_the_page_of_prefect_sends_its_password_to_its_own_server(storage_only: Path) -> None:
    alone = stacks.start(storage_only, names=["prefect"], deploy=False, preferred_ports=False)  # not on 4200
    _, answer = http.request(f"{alone.layout.address('prefect')}/ui-settings", {})
    stacks.stop(storage_only)
    alone.reap()
    assert json.loads(answer)["api_url"] == f"{alone.layout.address('prefect')}/api"


def test_all_answer_with_their_secrets(stack: Stack) -> None:
    assert [service.name for service in services.SERVICES if not service.answers(stack.layout)] == []
    storage.put("s3://ada2i/tests/hello", b"hello")
    assert storage.get("s3://ada2i/tests/hello") == b"hello"
    storage.delete("s3://ada2i/tests/hello")


def test_only_this_user_can_read_it(stack: Stack) -> None:
    folder = stack.layout.folder
    assert folder.stat().st_mode & 0o777 == 0o700
    assert stack.layout.ray_folder.stat().st_mode & 0o777 == 0o700
    secret = ["env", "ray-token", "prefect-auth", "s3.json", "security.toml", "s3-inner.key", "state.json"]
    assert {(folder / name).stat().st_mode & 0o777 for name in secret} == {0o600}


def test_listeners_are_on_loopback_only(stack: Stack) -> None:
    found = listeners(stack)
    assert set(stack.layout.ports.values()) <= set(found)
    loopback = {"0100007F", "0000000000000000FFFF00000100007F"}
    assert {port: address for port, address in found.items() if address not in loopback} == {}


def test_the_environment_works_in_a_shell(stack: Stack) -> None:
    command = f"set -a; . '{stack.layout.folder}/env'; set +a; env"
    said = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=True, env={}).stdout
    assert stack.environment().items() <= dict(line.split("=", 1) for line in said.splitlines()).items()


def test_starting_again_changes_nothing(stack: Stack) -> None:
    seen: list[tuple[str, str, str, float]] = []
    again = stacks.start(stack.layout.folder, progress=lambda *event: seen.append(event))
    assert [event for _, _, event, _ in seen] == ["running"] * 5
    assert again.running == stack.running
    assert again.environment() == stack.environment()


def test_two_commands_at_once_are_refused(stack: Stack) -> None:
    with stacks._exclusive(stack.layout.folder), pytest.raises(ResourceError, match="another is under way"):
        stacks.stop(stack.layout.folder)


def test_the_nightly_schedule_makes_runs(stack: Stack) -> None:
    scheduled = {
        "deployments": {"name": {"any_": ["train-ada2i"]}},
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
    }
    deadline, automatic = time.monotonic() + 60, list[Any]()
    while not automatic and time.monotonic() < deadline:  # the server makes them a few seconds after a deployment
        automatic = [run for run in ask_prefect(stack, "flow_runs/filter", scheduled) if run["auto_scheduled"]]
        time.sleep(0.5)
    assert automatic
    assert {datetime.fromisoformat(run["expected_start_time"]).strftime("%H:%M") for run in automatic} == {"03:00"}


FLOWS = """
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.states import Completed

@task
def step(number):
    return number

@flow
def small():
    for number in range(3):
        step(number)
    create_markdown_artifact(key="small", markdown="# Small")
    return Completed(name="Registered", data="uri")

assert [small() for _ in range(8)] == ["uri"] * 8
"""


def test_processes_that_run_flows_at_once_do_not_lock_the_database(stack: Stack) -> None:
    """Automations of Prefect 3.8 read before they lock, and fail if another flow run writes in between."""
    log = stack.layout.log("prefect")
    before = log.stat().st_size
    running = [subprocess.Popen([sys.executable, "-c", FLOWS], stderr=subprocess.DEVNULL) for _ in range(3)]
    assert [process.wait(300) for process in running] == [0, 0, 0]
    assert "database is locked" not in log.read_bytes()[before:].decode()


def test_lost_runs_are_watched_once(stack: Stack) -> None:
    names = {automation["name"] for automation in ask_prefect(stack, "automations/filter", {})}
    ours = {automation["name"] for automation in json.loads(services._AUTOMATIONS.read_text())["automations"]}
    assert names == ours | {"reap-jobs-of-ended-runs", "train-on-drift", "train-on-new-features"}


def test_an_automation_that_the_server_lost_is_made_again(stack: Stack) -> None:
    name = "lost-runs-are-crashed"
    (found,) = services._automation_ids(stack.layout, name)
    services._ask_prefect(stack.layout, f"automations/{found}", method="DELETE")
    seen: list[tuple[str, str, str, float]] = []
    stacks.start(stack.layout.folder, progress=lambda *event: seen.append(event))
    assert [event for title, _, event, _ in seen if title == "Flows"] == ["ready"]
    assert len(services._automation_ids(stack.layout, name)) == 1


class Run:
    """A run of a deployment that no worker starts: its states are set here."""

    def __init__(self, stack: Stack, name: str) -> None:
        self.stack = stack
        (deployment,) = ask_prefect(stack, "deployments/filter", {"deployments": {"name": {"any_": [name]}}})
        later = {"scheduled_time": (datetime.now(UTC) + timedelta(days=2)).isoformat()}
        body = {"state": {"type": "SCHEDULED", "state_details": later}, "enforce_parameter_schema": False}
        self.id = ask_prefect(stack, f"deployments/{deployment['id']}/create_flow_run", body)["id"]
        self.place = deployment["global_concurrency_limit"]["name"]

    def set(self, kind: str) -> None:
        forced = kind == "RUNNING"  # before its time, which is in two days
        body = {"state": {"type": kind}, "force": forced}
        assert ask_prefect(self.stack, f"flow_runs/{self.id}/set_state", body)["status"] == "ACCEPT"

    @property
    def state(self) -> dict[str, Any]:
        (run,) = ask_prefect(self.stack, "flow_runs/filter", {"flow_runs": {"id": {"any_": [self.id]}}})
        found: dict[str, Any] = run["state"]
        return found

    @property
    def places_taken(self) -> int:
        limits = ask_prefect(self.stack, "v2/concurrency_limits/filter", {})
        return next(int(limit["active_slots"]) for limit in limits if limit["name"] == self.place)


def test_a_run_that_does_not_start_frees_its_place(stack: Stack) -> None:
    automations = json.loads(services._AUTOMATIONS.read_text())["automations"]
    (watch,) = [one for one in automations if one["name"] == "runs-that-do-not-start-are-crashed"]
    assert watch["trigger"]["within"] <= 300
    quick = {**watch, "name": "quick", "trigger": {**watch["trigger"], "within": 15}}
    created = ask_prefect(stack, "automations/", quick)["id"]
    try:
        lost, started, queued = Run(stack, "promote-ada2i"), Run(stack, "predict-emotions"), Run(stack, "tune-ada2i")
        for run in (lost, started):
            run.set("PENDING")
        started.set("RUNNING")
        assert (lost.state["name"], lost.places_taken) == ("Pending", 1)
        deadline = time.monotonic() + 60
        while lost.state["type"] != "CRASHED" and time.monotonic() < deadline:
            time.sleep(0.5)
        assert lost.state["message"] == "Not started within 5 minutes: its worker is gone."
        assert lost.places_taken == 0
        time.sleep(15)
        assert (started.state["type"], queued.state["type"]) == ("RUNNING", "SCHEDULED"), started.state
        started.set("COMPLETED")
    finally:
        services._ask_prefect(stack.layout, f"automations/{created}", method="DELETE")


def prefect(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_PLUGINS")}
    command = [sys.executable, "-m", "prefect", *arguments]
    return subprocess.run(
        command,
        cwd=services.REPOSITORY,
        env={**env, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("name", ["train-ada2i", "train-ada2i/train-ada2i"])
def test_a_deployment_runs_by_its_bare_name_and_by_its_full_one(stack: Stack, name: str) -> None:
    said = prefect("deployment", "run", name, "--start-in", "2 days")
    assert (said.returncode, said.stderr) == (0, "")
    assert "Created flow run" in said.stdout


def test_the_full_name_works_without_the_plugin(stack: Stack) -> None:
    said = prefect(
        "deployment", "run", "train-ada2i/train-ada2i", "--start-in", "2 days", PREFECT_PLUGINS_ENABLED="false"
    )
    assert said.returncode == 0


def test_an_unknown_bare_name_is_one_line(stack: Stack) -> None:
    said = prefect("deployment", "run", "train-adaii")
    assert (said.returncode, said.stdout + said.stderr) == (1, "Deployment 'train-adaii' not found!\n")


def test_the_job_that_reads_versions_leaves_no_trace(stack: Stack) -> None:
    address = stack.environment()["RAY_API_SERVER_ADDRESS"]
    ray = client.connect(address)
    before = {job.submission_id for job in ray.list_jobs()}
    client.versions(address)
    time.sleep(3)  # Ray's monitor looks each second
    assert {job.submission_id for job in ray.list_jobs()} == before


def test_status(stack: Stack) -> None:
    said = CliRunner().invoke(local.app, ["status", "--json", "--folder", str(stack.layout.folder)])
    assert said.exit_code == 0
    rows = json.loads(said.stdout)
    assert [row["service"] for row in rows] == ["S3", "Prefect", "Ray", "Worker"]
    assert {row["state"] for row in rows} == {"answers"}


@pytest.fixture
def storage_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = cluster.short_folder()
    yield folder
    stacks.stop(folder)
    stacks.purge(folder)


def test_a_stop_leaves_data_but_no_process_and_no_port(storage_only: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = stacks.start(storage_only, names=["s3"], deploy=False, preferred_ports=False)
    for name, value in first.environment().items():
        monkeypatch.setenv(name, value)
    storage.put("s3://ada2i/kept", b"kept")
    ports, family = set(listeners(first)), processes._family(first.running["s3"])
    assert family
    stacks.stop(storage_only)
    first.reap()
    assert not any(member.alive for member in family)
    assert not first.layout.ray_folder.exists()
    assert {port for port in ports if cluster.free_port(port) != port} == set()
    said = CliRunner().invoke(local.app, ["status", "--folder", str(storage_only)])
    assert said.exit_code == 0
    assert said.stdout.count("stopped") == 5
    assert "The stack is stopped; `make up` starts it." in said.stdout

    second = stacks.start(storage_only, names=["s3"], deploy=False, preferred_ports=False)
    assert second.environment() == first.environment()
    assert storage.get("s3://ada2i/kept") == b"kept"
    monkeypatch.setattr(local, "_DOTENV", storage_only / "no-dotenv")
    for _ in range(2):  # the second time, nothing runs
        said = CliRunner().invoke(local.app, ["down", "--folder", str(storage_only), "--purge"])
        assert said.exit_code == 0
        assert f"{storage_only} is deleted." in said.stdout
    second.reap()
    assert not storage_only.exists()


def test_a_private_head_runs_next_to_the_stack_and_leaves_nothing(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.job_submission import JobSubmissionClient

    for name in stack.layout.ray_environment():
        monkeypatch.delenv(name)
    with cluster.cluster() as private:
        folder = Path(os.environ["RAY_AUTH_TOKEN_PATH"]).parent
        assert http.request(f"{private.address}/api/jobs/", {})[0] == 401
        client = JobSubmissionClient(private.address, headers=http.auth_headers())
        # What a job starts in a session of its own must go too.
        code = "import os, time; print(os.getpid(), flush=True); time.sleep(99)"
        job = client.submit_job(entrypoint=f"setsid {sys.executable} -c '{code}'")
        deadline, pid = time.monotonic() + 60, ""
        while not pid and time.monotonic() < deadline:
            pid = next((line for line in client.get_job_logs(job).splitlines() if line.isdigit()), "")
            time.sleep(0.2)
        assert processes._started(int(pid))
        begun = time.monotonic()
    assert time.monotonic() - begun < 8
    assert processes._started(int(pid)) is None
    assert not folder.exists()
    assert not [p for p in Path("/proc").iterdir() if p.name.isdigit() and str(folder) in _command(p)]
    assert "RAY_AUTH_TOKEN_PATH" not in os.environ


def _command(process: Path) -> str:
    try:
        return (process / "cmdline").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
