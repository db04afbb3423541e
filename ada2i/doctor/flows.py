"""Checks Prefect: the server, the deployments, their workers, and whether schedules create runs.

It sends the HTTP requests that a client of Prefect would send.
"""

import base64
import importlib.metadata
import json
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ada2i import storage
from ada2i.display import count
from ada2i.doctor.check import Check, fail, ok, skipped, warn
from ada2i.doctor.clock import check_clock
from ada2i.jobs.http import request

_FLOW: Final = "train-ada2i"
_LEASES: Final = "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE=prefect.server.concurrency.lease_storage.filesystem"
_SCHEDULING_SECONDS: Final = 30.0  # Prefect's scheduler creates a new deployment's runs within seconds, later if busy


def check_flows() -> Iterator[Check]:
    """Check the server, and each of its deployments."""
    url = os.environ.get("PREFECT_API_URL", "").rstrip("/")
    if not url:
        yield skipped("Prefect", "not configured: PREFECT_API_URL is not set")
        return
    try:
        yield from _look(url)
    except (ValueError, KeyError, TypeError):
        todo = "Correct PREFECT_API_URL (it ends in /api)."
        yield fail("Prefect", f"the server at {storage.public(url)} is not Prefect", todo)


def _look(url: str) -> Iterator[Check]:
    status, body = _ask(url, "admin/version")
    if status != 200:
        yield _refused(storage.public(url), status)
        return
    yield _version(storage.public(url), json.loads(body))
    yield _password(url)
    yield check_clock("Prefect clock", f"{url}/health")
    yield _settings()
    status, body = _ask(url, "deployments/filter", {})
    if status != 200:
        yield _unanswered("deployments", status)
        return
    deployments: list[dict[str, Any]] = json.loads(body)
    if not any(each["name"] == _FLOW for each in deployments):
        todo = "Run: prefect --no-prompt deploy --all (in the folder of prefect.yaml)."
        yield fail("deployments", f"there is no {_FLOW}", todo)
    for pool in sorted({each["work_pool_name"] for each in deployments if each["work_pool_name"]}):
        yield _pool(url, pool)
    for deployment in deployments:
        yield _deployment(url, deployment)
    yield from _leases(url)
    yield from _slots(url)


def _unanswered(title: str, status: int) -> Check:
    found = f"the server answers HTTP {status}" if status else "the server does not answer in time"
    return fail(title, found, "Run `ada2i doctor` again; if it stays, see the server's log.")


def _refused(shown: str, status: int) -> Check:
    if status in (401, 403):
        return fail("Prefect", f"{shown} refuses the password", "Correct PREFECT_API_AUTH_STRING: user:password.")
    found = f"answers HTTP {status}" if status else "does not answer"
    return fail("Prefect", f"{shown} {found}", "Start the server, or correct PREFECT_API_URL (it ends in /api).")


def _version(shown: str, theirs: str) -> Check:
    ours = importlib.metadata.version("prefect")
    if theirs == ours:
        return ok("Prefect", f"{theirs} at {shown}")
    return warn("Prefect", f"{theirs} at {shown}, but {ours} here", "Install the same version on both sides.")


def _password(url: str) -> Check:
    if request(f"{url}/admin/version", {})[0] == 200:
        todo = "Anyone who reaches it can start flows. Set PREFECT_SERVER_API_AUTH_STRING where the server runs."
        return warn("Prefect password", "the server requires no password", todo)
    return ok("Prefect password", "the server requires it")


def _settings() -> Check:
    wanted = {"PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": ("false", "0"), "DO_NOT_TRACK": ("true", "1")}
    wrong = [name for name, values in wanted.items() if os.environ.get(name, "").lower() not in values]
    if not wrong:
        return ok("Prefect settings", "no server of its own behind a wrong address, no telemetry")
    todo = " and ".join(f"{name}={wanted[name][1] if name == 'DO_NOT_TRACK' else wanted[name][0]}" for name in wrong)
    return warn("Prefect settings", f"{', '.join(wrong)} not set as needed", f"Set {todo}.")


def _pool(url: str, name: str) -> Check:
    title, todo = f"work pool {name}", f"Start one: prefect worker start --pool {name}"
    status, body = _ask(url, f"work_pools/{name}")
    if status not in (200, 404):
        return _unanswered(title, status)
    if status == 404:
        return fail(title, "does not exist", f"Run: prefect work-pool create {name} --type process")
    if json.loads(body).get("is_paused"):
        return fail(title, "is paused", f"Run: prefect work-pool resume {name}")
    status, body = _ask(url, f"work_pools/{name}/workers/filter", {})
    if status != 200:
        return _unanswered(title, status)
    online = [worker for worker in json.loads(body) if worker["status"] == "ONLINE"]
    return ok(title, f"{count(len(online), 'worker')} online") if online else fail(title, "no worker is online", todo)


def _deployment(url: str, deployment: Mapping[str, Any]) -> Check:
    title = f"deployment {deployment['name']}"
    if deployment["paused"]:
        return warn(title, "is paused", "Resume it in Prefect's UI, if its schedules should run.")
    schedules = [schedule for schedule in deployment["schedules"] if schedule["active"]]
    if not schedules:
        off = len(deployment["schedules"])
        return ok(title, "runs on request" + (f"; {count(off, 'schedule')} off" if off else ""))
    found = count(len(schedules), "schedule")
    deadline = time.monotonic() + _SCHEDULING_SECONDS
    while not (starts := _scheduled_starts(url, deployment["id"])):
        if time.monotonic() >= deadline:
            todo = "The server's scheduler does not work: check its log, and that its sqlalchemy is below 2.1."
            return fail(title, f"{found}, but no run is scheduled", todo)
        time.sleep(1)
    return ok(title, f"{found}; next run {starts[0][:16]}Z")


def _leases(url: str) -> Iterator[Check]:
    status, body = _ask(url, "admin/settings")
    if status != 200:
        return
    where = str(json.loads(body)["server"]["concurrency"]["lease_storage"])
    if not where.endswith(".memory"):
        yield ok("Prefect leases", where)
        return
    todo = f"A restart forgets who holds a concurrency slot. Set {_LEASES} where the server runs."
    yield warn("Prefect leases", "are kept in the server's memory", todo)


def _slots(url: str) -> Iterator[Check]:
    """Check that each concurrency slot that is taken belongs to a live run."""
    status, body = _ask(url, "deployments/filter", {})
    if status != 200:
        yield _unanswered("Prefect slots", status)
        return
    limits = [(each["id"], each.get("global_concurrency_limit")) for each in json.loads(body)]
    taken = [(limit, _live(url, key)) for key, limit in limits if limit and limit["active_slots"]]
    if any(live is None for _, live in taken):
        yield warn("Prefect slots", "the server did not say how many runs are live", "Run `ada2i doctor` again.")
        return
    lost = [(limit["name"], live) for limit, live in taken if live is not None and live < limit["active_slots"]]
    if not lost:
        yield ok("Prefect slots", f"{sum(limit['active_slots'] for limit, _ in taken)} taken, each by a live run")
    for name, live in lost:
        todo = "It is freed within 5 minutes; if not, run: prefect global-concurrency-limit update"
        found = f"more slots of {name} are taken than its {count(live, 'live run')}"
        yield warn("Prefect slots", found, f"{todo} {name} --active-slots {live}")


def _live(url: str, deployment: str) -> int | None:
    """Return how many runs of a deployment are live; None if the server does not say so."""
    states = {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING", "PAUSED"]}}
    criteria = {"deployments": {"id": {"any_": [deployment]}}, "flow_runs": {"state": states}}
    status, body = _ask(url, "flow_runs/count", criteria)
    return int(json.loads(body)) if status == 200 else None


def _scheduled_starts(url: str, deployment: str) -> list[str]:
    """Return when the runs start that the server's scheduler created for a deployment, the next first."""
    coming = {
        "deployments": {"id": {"any_": [deployment]}},
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
        "sort": "EXPECTED_START_TIME_ASC",
    }
    status, body = _ask(url, "flow_runs/filter", coming)
    runs = json.loads(body) if status == 200 else []
    return [run["expected_start_time"] for run in runs if run["auto_scheduled"]]


def _ask(url: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, bytes]:
    auth = os.environ.get("PREFECT_API_AUTH_STRING", "")
    headers = {"Authorization": f"Basic {base64.b64encode(auth.encode()).decode()}"} if auth else {}
    if key := os.environ.get("PREFECT_API_KEY"):
        headers = {"Authorization": f"Bearer {key}"}
    if body is None:
        return request(f"{url}/{path}", headers)
    return request(f"{url}/{path}", headers, method="POST", body=json.dumps(body).encode())
