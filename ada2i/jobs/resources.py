"""Checks whether a cluster has room for a run before any work, because a job without room would wait forever."""

import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Final

from ada2i import storage
from ada2i.config import ResourceConfig
from ada2i.errors import ConfigError, ResourceError, UnreachableError
from ada2i.jobs.cluster import HEAD_CPUS
from ada2i.jobs.http import auth_headers, request
from ada2i.jobs.nodes import hosts

SHARED_ROOT: Final = "ADA2I_SHARED_ROOT"
"""Environment variable: with 1, a root that is a folder is mounted at the same path on every node."""

_REPLACEMENT_SECONDS = 30.0  # how long a node may take to be replaced
_POLL_SECONDS = 1.0


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


def check_resources(resources: ResourceConfig, available: Mapping[str, float]) -> bool:
    """Return whether to train on GPUs.

    Raises:
        ResourceError: The cluster has fewer CPUs or GPUs than a run needs to start.
    """
    field = "resources.min_workers" if resources.min_workers else "resources.workers"
    workers = resources.min_workers or resources.workers
    cpus, needed = available.get("CPU", 0.0), workers * resources.cpus_per_worker
    if needed > cpus:
        raise ResourceError(
            f"`{field}` = {workers} with {resources.cpus_per_worker:g} CPU each needs {needed:g} CPUs, but the cluster "
            f"has {cpus:g}. Request fewer with `--workers`, or add nodes.",
            field=field,
        )
    gpus = int(available.get("GPU", 0))
    if resources.device == "cuda" and gpus < workers:
        raise ResourceError(
            f"`resources.device` = cuda needs {workers} GPUs, one per worker, but the cluster has {gpus}. "
            "Request fewer workers, or set `resources.device=cpu`.",
            field="resources.device",
        )
    return resources.device == "cuda" or (resources.device == "auto" and gpus >= workers)


def fitting(available: Mapping[str, float], *, cpus: float, gpus: int = 0) -> int:
    """Return how many workers with some CPUs and GPUs a cluster has room for at a time; at least 1."""
    most = available.get("CPU", 0.0) / cpus
    if gpus:
        most = min(most, available.get("GPU", 0.0) / gpus)
    return max(1, int(most))


def wait_for_resources(
    check: Callable[[Mapping[str, float]], bool], available: Callable[[], Mapping[str, float]]
) -> bool:
    """Return the result of a check of a cluster's resources; a node that is being replaced has 30 s to come back.

    Args:
        check: A check, such as ``check_resources``.
        available: Returns the cluster's resources now.

    Raises:
        ResourceError: The check still fails after that.
    """
    deadline = time.monotonic() + _REPLACEMENT_SECONDS
    while True:
        try:
            return check(available())
        except ResourceError:
            if time.monotonic() > deadline:
                raise
        time.sleep(_POLL_SECONDS)
