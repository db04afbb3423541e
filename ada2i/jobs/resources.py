"""Checks whether a cluster has room for a run before any work, because a job without room would wait forever."""

import json
import math
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any, Final, Literal

from ada2i import storage
from ada2i.config import ResourceConfig
from ada2i.errors import CapacityError, ConfigError, ResourceError, UnreachableError
from ada2i.jobs import events
from ada2i.jobs.cluster import HEAD_CPUS
from ada2i.jobs.http import auth_headers, request
from ada2i.jobs.nodes import hosts

SHARED_ROOT: Final = "ADA2I_SHARED_ROOT"
"""Environment variable: with 1, a root that is a folder is mounted at the same path on every node."""

_REPLACEMENT_SECONDS = 30.0  # how long a node may take to be replaced
_POLL_SECONDS = 1.0
_REPORT_SECONDS = 10.0  # between two reports of a wait


def machine() -> dict[str, float]:
    """Return the resources of this machine, such as ``{"CPU": 8.0, "GPU": 2.0}``."""
    return {"CPU": float(HEAD_CPUS), "GPU": float(visible_gpus(len(list(Path("/dev").glob("nvidia[0-9]*")))))}


def capacity() -> dict[str, float]:
    """Return the resources of the cluster for this run's jobs; without a configured cluster, those of this machine.

    Raises:
        UnreachableError: A configured cluster does not answer, or refuses the token.
    """
    address = os.environ.get("RAY_API_SERVER_ADDRESS")
    if not address:
        return machine()
    status, body = request(f"{address}/api/v0/nodes?detail=1&limit=10000", auth_headers())
    shown = storage.public(address)
    if status != 200:
        raise UnreachableError(
            f"A Ray cluster must answer at {shown}, but {f'sent {status}' if status else 'nothing does'}. Start it, "
            "correct RAY_API_SERVER_ADDRESS and RAY_AUTH_TOKEN_PATH, or unset RAY_API_SERVER_ADDRESS to use a private "
            "cluster.",
            address=shown,
        )
    try:
        nodes = json.loads(body)["data"]["result"]["result"]
    except (ValueError, KeyError, TypeError) as problem:
        raise UnreachableError(
            f"A Ray dashboard must answer at {shown}, but another server does. Correct RAY_API_SERVER_ADDRESS.",
            address=shown,
        ) from problem
    total: dict[str, float] = {}
    for node in nodes:
        if node["state"] == "ALIVE":
            for name, amount in node["resources_total"].items():
                total[name] = total.get(name, 0.0) + float(amount)
    return total


def check_root(root: str) -> None:
    """Check that the cluster's nodes can read the root: a folder of this machine must not be used by another one.

    Raises:
        ConfigError: The root is a folder, and a node of the configured cluster has another host name than this machine.
    """
    address = os.environ.get("RAY_API_SERVER_ADDRESS")
    if not address or storage.local_path(root) is None or os.environ.get(SHARED_ROOT) == "1":
        return
    if others := hosts(address) - {socket.gethostname()}:
        raise ConfigError(
            f"The root must be one that every node of the cluster can read, but {root} is a folder of this machine "
            f"({socket.gethostname()}), and the jobs of {storage.public(address)} run on {', '.join(sorted(others))}. "
            "Choose an S3 root with `--root s3://BUCKET/PREFIX`; unset RAY_API_SERVER_ADDRESS to run on this machine; "
            f"or set {SHARED_ROOT}=1 if the folder is mounted at this path on every node.",
            field="root",
        )


def visible_gpus(devices: int) -> int:
    """Return how many of this machine's GPUs CUDA_VISIBLE_DEVICES allows; like CUDA, stop at an invalid entry."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return devices
    entries = [entry.strip() for entry in listed.split(",")]
    valid = list(takewhile(lambda e: e.startswith(("GPU-", "MIG-")) or (e.isdigit() and int(e) < devices), entries))
    return min(devices, len(valid))


@dataclass(frozen=True)
class Placement:
    """Where the processes of a job run.

    Attributes:
        workers: Number of processes.
        least: The number without which the job does not start.
        device: ``cpu`` or ``cuda``.
        cpus: CPUs of each process.
        gpus: GPUs of each process, at most 1; 0 on the CPU.
        reason: Why this device and number, for people.
    """

    workers: int
    least: int
    device: Literal["cpu", "cuda"]
    cpus: float
    gpus: float
    reason: str

    @property
    def use_gpu(self) -> bool:
        """Whether each process has a GPU, or a share of one."""
        return self.device == "cuda"

    @property
    def facts(self) -> dict[str, Any]:
        """The choice and its reason, for events and records."""
        return {"workers": self.workers, "device": self.device, "reason": self.reason}

    @property
    def needed(self) -> dict[str, float]:
        """The resources without which the job does not start."""
        return {"CPU": self.least * self.cpus} | ({"GPU": _gpus_for(self.least, self.gpus)} if self.gpus else {})

    def missing(self, available: Mapping[str, float]) -> str:
        """Return what a cluster still lacks, as text; empty if the job can start."""
        short = {kind: amount for kind, amount in self.needed.items() if amount > available.get(kind, 0.0)}
        return " and ".join(f"{amount:g} {kind}s (now {available.get(kind, 0.0):g})" for kind, amount in short.items())

    def of(self, resources: ResourceConfig) -> ResourceConfig:
        """Return resources in which number and device are decided."""
        return resources.model_copy(update={"workers": self.workers, "device": self.device})


def check_resources(
    resources: ResourceConfig, available: Mapping[str, float], *, shared: bool = False, group: str = "resources."
) -> Placement:
    """Return where the processes of a job run, on a cluster that may still have to grow (``Placement.missing``).

    Args:
        resources: What the config requests. Without a number of workers there is one for each GPU, else two.
        available: The cluster's resources now.
        shared: Whether several processes may share a GPU. Training ranks may not: NCCL refuses it.
        group: The group of the config's fields, for messages.

    Raises:
        CapacityError: The cluster has, and may have, fewer CPUs or GPUs than the job needs to start.
        ResourceError: Several training workers would share a GPU.
    """
    most = {
        "CPU": max(available.get("CPU", 0.0), resources.max_cpus or 0.0),
        "GPU": max(available.get("GPU", 0.0), resources.max_gpus or 0),
    }
    gpus = int(available.get("GPU", 0)) or min(1, int(most["GPU"]))
    cuda = resources.device == "cuda" or (resources.device == "auto" and gpus > 0)
    workers, reason = _number(resources, gpus if cuda else 0, most["CPU"], shared=shared, group=group)
    share = (resources.gpus_per_worker or (_even_share(workers, gpus) if shared else 1.0)) if cuda else 0.0
    if resources.device == "cpu":
        reason = f"`{group}device` is cpu"
    elif not cuda:
        reason = "there is no GPU"
    elif share < 1.0:
        reason = f"{reason}; each has {share:g} of a GPU"
    least = resources.min_workers or workers
    found = Placement(workers, least, "cuda" if cuda else "cpu", resources.cpus_per_worker, share, reason)
    _check_cpus(found, resources, most["CPU"], group)
    if cuda:
        _check_gpus(found, int(most["GPU"]), group=group, shared=shared)
    return found


def _number(resources: ResourceConfig, gpus: int, cpus: float, *, shared: bool, group: str) -> tuple[int, str]:
    """Return the number of processes on some GPUs, and its reason."""
    if resources.workers is not None:
        return resources.workers, f"`{group}workers` is {resources.workers}"
    least, room = resources.min_workers or 1, int(cpus / resources.cpus_per_worker)
    two = max(1, min(2, room))
    if shared:
        return max(two, min(gpus, room)), "one worker for each GPU, at least two"
    if not gpus:
        return max(two, least), ""
    if resources.gpus_per_worker is not None and resources.gpus_per_worker < 1.0:
        return least, "one worker, since it has a share of a GPU"
    if room < gpus:
        return max(room, least), f"one worker for each {resources.cpus_per_worker:g} CPU, which are fewer than the GPUs"
    return max(gpus, least), "one worker for each GPU"


def _even_share(workers: int, gpus: int) -> float:
    return math.floor(10_000 / math.ceil(workers / max(gpus, 1))) / 10_000  # Ray rounds to four decimals


def _gpus_for(workers: int, share: float) -> float:
    """Return how many GPUs hold some workers, none of which is spread over two GPUs."""
    return workers * share if workers == 1 else float(math.ceil(workers / int(1.0 / share + 1e-9)))


def _check_cpus(found: Placement, resources: ResourceConfig, cpus: float, group: str) -> None:
    field = f"{group}min_workers" if resources.min_workers else f"{group}workers"
    needed = found.needed["CPU"]
    if needed > cpus:
        raise CapacityError(
            f"`{field}` = {found.least} with {found.cpus:g} CPU each needs {needed:g} CPUs, but the cluster has "
            f"{cpus:g}{' at most' if resources.max_cpus else ''}. Request fewer with `--workers`, or add nodes"
            f"{'' if resources.max_cpus else f' (if it grows by itself, set `{group}max_cpus`)'}.",
            field=field,
        )


def _check_gpus(found: Placement, gpus: int, *, group: str, shared: bool) -> None:
    if not shared and found.workers > 1 and found.gpus < 1.0:
        raise ResourceError(
            f"`{group}gpus_per_worker` must be 1 for training on {found.workers} workers, but is {found.gpus:g}: NCCL "
            f"refuses two workers on one GPU. Set `{group}workers=1`, or leave `{group}gpus_per_worker` out.",
            field=f"{group}gpus_per_worker",
        )
    needed = found.needed["GPU"]
    if needed <= gpus:
        return
    if not gpus:
        raise CapacityError(
            f"`{group}device` = cuda needs {needed:g} GPUs, but the cluster has 0. Add a node with a GPU (if the "
            f"cluster grows by itself, set `{group}max_gpus`), or set `{group}device=cpu`.",
            field=f"{group}device",
        )
    each = "one per worker" if found.gpus == 1.0 else f"{found.gpus:g} per worker"
    raise CapacityError(
        f"{found.least} workers need {needed:g} GPUs, {each}, but the cluster has {gpus}. Leave `{group}workers` out, "
        f"or set `{group}workers={gpus}`, to use what it has; or set `{group}device=cpu` to use CPUs; or set "
        f"`{group}max_gpus` if the cluster grows by itself.",
        field=f"{group}device",
    )


def place(resources: ResourceConfig, *, shared: bool = False, group: str = "resources.") -> Placement:
    """Return where the processes of this driver's job run, once the cluster has room; see ``check_resources``.

    Raises:
        ResourceError: The cluster lacks CPUs or GPUs, and still lacks them after ``wait_minutes``.
    """
    import ray

    check = partial(check_resources, resources, shared=shared, group=group)
    return wait_for_resources(check, ray.cluster_resources, minutes=resources.wait_minutes, demand=_demand)


@contextmanager
def _demand(wanted: Placement) -> Iterator[None]:
    """Make an autoscaling cluster start nodes for a job, by a placement group that ends with this driver."""
    from ray.util import placement_group, remove_placement_group

    each = {"CPU": wanted.cpus} | ({"GPU": wanted.gpus} if wanted.gpus else {})
    group = placement_group([each] * wanted.least)
    try:
        yield
    finally:
        remove_placement_group(group)


def fitting(available: Mapping[str, float], *, cpus: float, gpus: float = 0.0) -> int:
    """Return how many workers with some CPUs and GPUs a cluster has room for at a time; at least 1."""
    most = int(available.get("CPU", 0.0) / cpus)
    if gpus:
        on_gpus = int(available.get("GPU", 0.0)) * int(1.0 / gpus + 1e-9) if gpus < 1.0 else available["GPU"] // gpus
        most = min(most, int(on_gpus))
    return max(1, most)


def wait_for_resources(
    check: Callable[[Mapping[str, float]], Placement],
    available: Callable[[], Mapping[str, float]],
    *,
    minutes: float = 0.0,
    demand: Callable[[Placement], AbstractContextManager[Any]] = nullcontext,
) -> Placement:
    """Return a placement once a cluster has room for it, and report what is waited for.

    Args:
        check: Such as ``check_resources``. A node that is being replaced has 30 s until its error is raised.
        available: Returns the cluster's resources now.
        minutes: How long a cluster may take to grow.
        demand: Makes the cluster grow, within its context.

    Raises:
        ResourceError: The check still fails after 30 s, or the cluster has not grown in time.
    """
    begun, reported = time.monotonic(), -math.inf
    with ExitStack() as growing:
        while True:
            now, found = time.monotonic(), available()
            try:
                placement = check(found)
            except ResourceError:
                if now > begun + _REPLACEMENT_SECONDS:
                    raise
            else:
                missing = placement.missing(found)
                if not missing:
                    return placement
                if now > begun + 60.0 * minutes:
                    raise ResourceError(
                        f"The cluster must grow within {minutes:g} minutes, but still lacks {missing}. Raise "
                        "`wait_minutes`, request fewer workers, or look at the autoscaler's log.",
                        field="wait_minutes",
                    )
                if reported == -math.inf:
                    growing.enter_context(demand(placement))
                if now > reported + _REPORT_SECONDS:
                    left = 60.0 * minutes - (now - begun)
                    events.emit("waiting", message=f"waiting for {missing}, at most {left:.0f} s more")
                    reported = now
            time.sleep(_POLL_SECONDS)
