"""What tests of whole runs share: start one, watch it, kill a part of it, compare its weights."""

import json
import os
import re
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from torch import Tensor

from ada2i import storage
from ada2i.checkpoint import load_weights
from ada2i.jobs.client import Job
from ada2i.jobs.events import Event
from ada2i.records import RunRequest, SeedResult
from ada2i.store import RunFolder, Store
from ada2i.training.launch import JOB, Show
from ada2i.training.request import TrainSpec, prepare
from infra import stack as stacks
from infra.stack import Stack

# Long enough to be interrupted by a follower, which gets events up to 2 s late; with dropout, modulation and noise.
SLOW = {
    "training.epochs": 40,
    "training.early_stopping_epochs": 40,
    "training.seeds": [1],
    "model.encoder.feedforward_dim": 1024,
    "balance.method": "ada2i",
    "balance.start_epoch": 2,
}


def until(found: Callable[[], Any], what: str, seconds: float = 300.0, every: float = 0.5) -> Any:
    """Wait for something that is not empty, and return it; fail with what it is after some seconds."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(every)
    return value


@contextmanager
def client_settings(stack: Stack) -> Iterator[None]:
    """Let this process's Prefect client use a stack; Prefect read its environment before, when it was imported."""
    from prefect import settings

    environment = stack.environment()
    names = (
        "PREFECT_API_URL",
        "PREFECT_API_AUTH_STRING",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY",
    )
    with settings.temporary_settings({getattr(settings, name): environment[name] for name in names}):
        yield


def start_again(stack: Stack, **options: Any) -> None:
    """Start the services of a stack that have ended, with options of ``infra.stack.start``."""
    again = stacks.start(stack.layout.folder, **options)
    stack.reap()
    stack.running |= again.running
    stack._children += again._children


def run_uri(root: str, run_id: str) -> str:
    """Return the folder of a run."""
    return Store.open(root).run(run_id).uri


def seed_uri(run_uri: str, seed: int) -> str:
    """Return the folder of one seed of a run."""
    return RunFolder(run_uri).seed(seed).uri


def listener(on_event: Callable[[Event | str], None]) -> Show:
    """Return what ``launch`` opens for the events of a job: a given listener."""
    return lambda *_: nullcontext(on_event)


def prepared(root: str, run_id: str, **overrides: Any) -> str:
    """Prepare a run on the demo corpus; return its URI."""
    spec = TrainSpec(features="demo", overrides={**SLOW, **overrides})
    return prepare(spec, root=root, run_id=run_id).uri


def job_of(run_uri: str, driver: str = JOB) -> Job:
    """Return the job of a prepared run, search or study."""
    return Job(driver, run_uri, storage.digest(storage.get(storage.join(run_uri, "request.json"))))


def stored(uri: str) -> list[str]:
    """Return the names of all objects under a URI, relative to it."""
    found = []
    for name in storage.children(uri):
        place = storage.join(uri, name)
        found += [name] if storage.exists(place) else [f"{name}/{inner}" for inner in stored(place)]
    return found


def remains(run_uri: str, seed: int = 1) -> set[str]:
    """Return the objects that a trained run holds too many or lacks; an empty set if it is complete."""
    result = seed_result(run_uri, seed)
    whole = ["manifest.json", "state.json", "weights.safetensors"]
    adam = [f"optimizer.{slot}.safetensors" for slot in ("exp_avg", "exp_avg_sq", "step")]
    expected = {f"seed-{seed}/checkpoints/{result.history[-1].step:09d}/{name}" for name in whole + adam}
    expected |= {f"seed-{seed}/best/{result.history[result.best_epoch - 1].step:09d}/{name}" for name in whole}
    expected |= {"request.json", "environment.json", f"seed-{seed}/result.json"}
    found = {re.sub(r"/[0-9a-f]{16}-", "/", name) for name in stored(run_uri)}  # without the files' digests
    return expected ^ {name for name in found if not name.startswith(("jobs/", f"seed-{seed}/attempts/"))}


def same_weights(ours: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Return whether weights are equal to the last bit."""
    return ours.keys() == other.keys() and all(torch.equal(ours[name], other[name]) for name in other)


def live_actor(name: str) -> int:
    """Return the process id of the one live actor of a class."""
    actors = dashboard("/api/v0/actors?detail=1&limit=1000")["data"]["result"]["result"]
    (found,) = [actor for actor in actors if actor["class_name"] == name and actor["state"] == "ALIVE"]
    return int(found["pid"])


def final_weights(run_uri: str, seed: int = 1) -> dict[str, Tensor]:
    """Return the weights of the last epoch of a finished seed."""
    checkpoints = storage.join(seed_uri(run_uri, seed), "checkpoints")
    newest = [name for name in storage.children(checkpoints) if name.isdigit()][-1]
    return load_weights(storage.join(checkpoints, newest))


def seed_result(run_uri: str, seed: int = 1) -> SeedResult:
    """Return a finished seed's result."""
    return SeedResult.load(storage.join(seed_uri(run_uri, seed), "result.json"))


def registered_weights(version_uri: str) -> dict[str, Tensor]:
    """Return a version's weights."""
    return load_tensors(storage.get(storage.join(version_uri, "weights.safetensors")))


def dashboard(path: str) -> Any:
    """Ask the Ray dashboard, with the stack's token."""
    token = Path(os.environ["RAY_AUTH_TOKEN_PATH"]).read_text()
    address = os.environ["RAY_API_SERVER_ADDRESS"] + path
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def train_run(run_id: str) -> dict[str, Any]:
    """Return what the dashboard's Train tab knows of a run."""
    found = [run for run in dashboard("/api/train/v2/runs/v1")["train_runs"] if run["name"] == run_id]
    assert found, f"the Train tab does not show {run_id}"
    newest: dict[str, Any] = max(found, key=lambda run: run["start_time_ns"])
    return newest


def worker_pid(run_id: str, rank: int) -> int:
    """Return the process id of a live training worker."""
    attempt = train_run(run_id)["attempts"][-1]
    return int(next(w["pid"] for w in attempt["workers"] if w["world_rank"] == rank))


class KillOnce:
    """An event listener that sends one process a signal, once an epoch is done."""

    def __init__(self, epoch: int, pid: Callable[[], int], number: signal.Signals = signal.SIGKILL) -> None:
        self.epoch = epoch
        self.pid = pid
        self.number = number
        self.killed: int | None = None
        self.epochs: list[int] = []

    def __call__(self, event: Event | str) -> None:
        """Take one event."""
        if isinstance(event, str) or event["kind"] != "epoch":
            return
        self.epochs.append(event["record"]["epoch"])
        if self.killed is None and self.epochs[-1] >= self.epoch:
            self.killed = self.pid()
            os.kill(self.killed, self.number)


def gone(pid: int, seconds: float = 10.0) -> bool:
    """Return whether a process ends within some seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1][:3]:
            return True
        time.sleep(0.1)
    return False


def request_of(run_uri: str) -> RunRequest:
    """Return a run's request."""
    return RunRequest.load(storage.join(run_uri, "request.json"))
