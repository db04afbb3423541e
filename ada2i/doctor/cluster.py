"""Checks the Ray cluster that runs the jobs."""

import importlib.metadata
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from ada2i import storage
from ada2i.doctor.check import Check, fail, ok, skipped, warn
from ada2i.errors import AccessError, Ada2iError
from ada2i.jobs.client import versions
from ada2i.jobs.cluster import HEAD_CPUS
from ada2i.jobs.http import auth_headers, request


def check_cluster() -> Iterator[Check]:
    """Check the cluster's address, token, version and nodes."""
    address = os.environ.get("RAY_API_SERVER_ADDRESS")
    if not address:
        yield skipped("Ray", f"not configured: each run starts a private head with {HEAD_CPUS} CPUs")
        return
    shown = storage.public(address)
    try:
        headers = auth_headers()
    except AccessError as problem:
        what, _, todo = problem.message.partition(". ")
        yield fail("Ray", what, todo)
        return
    try:
        yield from _look(address, headers)
    except (ValueError, KeyError, TypeError):
        yield fail("Ray", f"the server at {shown} is not Ray", "Correct RAY_API_SERVER_ADDRESS.")


def _look(address: str, headers: Mapping[str, str]) -> Iterator[Check]:
    shown = storage.public(address)
    status, body = request(f"{address}/api/version", headers)
    if status != 200:
        yield _refused(shown, status)
        return
    yield _version(shown, json.loads(body)["ray_version"])
    yield from _nodes(shown, *request(f"{address}/nodes?view=summary", headers))
    yield _token(shown, request(f"{address}/api/jobs/", {})[0])
    yield _job(address)
    yield _metrics(shown, *request(f"{address}/api/prometheus/sd", headers))


def _token(shown: str, status: int) -> Check:
    """Check the answer to a request without a token."""
    if status == 200:
        todo = "Anyone who reaches it can run any code. Start it with RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH."
        return warn("Ray token", f"{shown} takes jobs without one", todo)
    if status in (401, 403):
        return ok("Ray token", f"{shown} refuses jobs without it")
    found = f"answers HTTP {status}" if status else "does not answer"
    return warn("Ray token", f"{shown} {found} to a request without a token", "Run `ada2i doctor` again.")


def _refused(shown: str, status: int) -> Check:
    if status in (401, 403):
        todo = "Set RAY_AUTH_TOKEN_PATH to the file with the cluster's token."
        return fail("Ray", f"{shown} refuses the token (HTTP {status})", todo)
    found = f"answers HTTP {status}" if status else "does not answer"
    todo = "Start the cluster, correct RAY_API_SERVER_ADDRESS, or unset it to use a private head."
    return fail("Ray", f"{shown} {found}", todo)


def _version(shown: str, theirs: str) -> Check:
    ours = importlib.metadata.version("ray")
    if theirs == ours:
        return ok("Ray", f"{theirs} at {shown}")
    return fail("Ray", f"{theirs} at {shown}, but {ours} here", "Install the same version on both sides.")


def _job(address: str) -> Check:
    """Let a job import ada2i, and compare its versions with those of this process."""
    try:
        found = versions(address)
    except Ada2iError as problem:
        todo = "Install ada2i for the Python that started the head, or set ADA2I_PYTHON there to one that has it."
        return fail("Ray job", problem.message, todo)
    if different := [f"{name} {there} there, {here} here" for name, (there, here) in found.items() if there != here]:
        todo = "Install the same versions on both sides, Python to the patch."
        return fail("Ray job", "; ".join(different), todo)
    return ok("Ray job", f"imports ada2i; {', '.join(f'{name} {here}' for name, (_, here) in found.items())}")


def _nodes(shown: str, status: int, body: bytes) -> Iterator[Check]:
    nodes: list[dict[str, Any]] = json.loads(body).get("data", {}).get("summary", []) if status == 200 else []
    alive = [node["raylet"] for node in nodes if node.get("raylet", {}).get("state") == "ALIVE"]
    totals = [node.get("resourcesTotal", {}) for node in alive]
    cpus, gpus = (sum(total.get(kind, 0.0) for total in totals) for kind in ("CPU", "GPU"))
    found = f"{len(alive)} alive, {cpus:g} CPUs, {gpus:g} GPUs"
    if cpus < 1:
        yield fail("Ray nodes", found, f"Add nodes to {shown}: jobs wait for a CPU.")
    elif len(alive) < len(nodes):
        yield warn("Ray nodes", f"{found}; {len(nodes) - len(alive)} dead", "Look at the dashboard's node page.")
    else:
        yield ok("Ray nodes", found)


def _metrics(shown: str, status: int, body: bytes) -> Check:
    targets = [target for group in json.loads(body) for target in group["targets"]] if status == 200 else []
    if targets:
        return ok("Ray metrics", f"{len(targets)} targets for Prometheus at {shown}/api/prometheus/sd")
    return warn("Ray metrics", "no targets for Prometheus", "Start Ray with its dashboard, which brings the agents.")
