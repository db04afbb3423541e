"""Ray and Prefect as they answer: in order, out of order, not there, not configured."""

import base64
import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ada2i.doctor import cluster
from ada2i.doctor.check import Check
from ada2i.doctor.clock import check_clock
from ada2i.doctor.cluster import check_cluster
from ada2i.doctor.flows import check_flows
from ada2i.errors import JobError
from tests.unit.doctor.servers import Answer, serving

RAY, PREFECT = importlib.metadata.version("ray"), importlib.metadata.version("prefect")
SECRET = "the-token-of-this-test"
PASSWORD = "ada2i:the-password-of-this-test"
Versions = dict[str, tuple[str, str]]
SAME: Versions = {"python": ("3.11.7", "3.11.7"), "torch": ("2.9", "2.9")}
NODE = {"state": "ALIVE", "resourcesTotal": {"CPU": 4.0, "GPU": 1.0}}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAY_API_SERVER_ADDRESS", "PREFECT_API_URL", "RAY_AUTH_TOKEN", "PREFECT_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "token").write_text(SECRET)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", PASSWORD)
    monkeypatch.setenv("PREFECT_SERVER_ALLOW_EPHEMERAL_MODE", "false")
    monkeypatch.setenv("DO_NOT_TRACK", "1")


class Ray:
    """A cluster's HTTP side."""

    def __init__(self, **changes: Any) -> None:
        self.facts = {"version": RAY, "token": SECRET, "nodes": [NODE], "targets": ["127.0.0.1:1"], **changes}

    def __call__(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        """Answer a request."""
        token = self.facts["token"]
        if token and headers.get("Authorization") != f"Bearer {token}":
            return 401, {}
        nodes = {"data": {"summary": [{"raylet": node} for node in self.facts["nodes"]]}}
        return 200, {
            "/api/version": {"ray_version": self.facts["version"]},
            "/nodes?view=summary": nodes,
            "/api/prometheus/sd": [{"targets": self.facts["targets"]}],
        }.get(path, {})


def ray(
    monkeypatch: pytest.MonkeyPatch,
    *,
    job: Callable[[str], dict[str, tuple[str, str]]] = lambda _: SAME,
    **changes: Any,
) -> dict[str, Check]:
    monkeypatch.setattr(cluster, "versions", job)
    with serving(Ray(**changes)) as url:
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", url)
        return {check.name: check for check in check_cluster()}


def statuses(checks: dict[str, Check]) -> dict[str, str]:
    return {name: check.status for name, check in checks.items()}


def test_what_is_not_configured_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [(check.name, check.status) for check in (*check_cluster(), *check_flows())] == [
        ("Ray", "skipped"),
        ("Prefect", "skipped"),
    ]


def test_a_cluster_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ray(monkeypatch)
    assert statuses(found) == dict.fromkeys(("Ray", "Ray nodes", "Ray token", "Ray job", "Ray metrics"), "ok")
    assert found["Ray nodes"].found == "1 alive, 4 CPUs, 1 GPUs"
    assert found["Ray job"].found == "imports ada2i; python 3.11.7, torch 2.9"


def test_a_job_without_ada2i_or_with_other_versions_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: str) -> Versions:
        raise JobError("A job that imports ada2i must succeed, but ended FAILED: /bin/sh: 1: python: not found")

    check = ray(monkeypatch, job=fails)["Ray job"]
    assert (check.status, "python: not found" in check.found) == ("fail", True)
    check = ray(monkeypatch, job=lambda _: {**SAME, "python": ("3.11.2", "3.11.7")})["Ray job"]
    assert (check.status, check.found) == ("fail", "python 3.11.2 there, 3.11.7 here")


@pytest.mark.parametrize(
    ("changes", "name", "status", "todo"),
    [
        ({"version": "2.59.0"}, "Ray", "fail", "Install the same version"),
        ({"token": "another"}, "Ray", "fail", "Set RAY_AUTH_TOKEN_PATH"),
        ({"token": ""}, "Ray token", "warn", "RAY_AUTH_MODE=token"),
        ({"nodes": []}, "Ray nodes", "fail", "Add nodes"),
        ({"nodes": [NODE, {"state": "DEAD"}]}, "Ray nodes", "warn", "Look at the dashboard"),
        ({"targets": []}, "Ray metrics", "warn", "Start Ray with its dashboard"),
    ],
)
def test_a_cluster_out_of_order(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], name: str, status: str, todo: str
) -> None:
    found = ray(monkeypatch, **changes)
    assert found[name].status == status
    assert todo in found[name].todo
    assert SECRET not in str(found)


@pytest.mark.parametrize(("status", "expected"), [(0, "warn"), (500, "warn"), (401, "ok"), (200, "warn")])
def test_only_a_refusal_shows_that_the_cluster_requires_its_token(status: int, expected: str) -> None:
    check = cluster._token("http://127.0.0.1:8265", status)
    assert check.status == expected
    assert ("refuses" in check.found) == (expected == "ok")


def test_a_cluster_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://user:word@127.0.0.1:9")
    (check,) = check_cluster()
    assert (check.status, check.found) == ("fail", "http://127.0.0.1:9 does not answer")


def test_a_token_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:9")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "absent"))
    (check,) = check_cluster()
    assert check.status == "fail"
    assert "cannot be read: No such file or directory" in check.found


class Prefect:
    """A server's HTTP side, with one deployment on a schedule."""

    def __init__(self, **changes: Any) -> None:
        self.facts: dict[str, Any] = {
            "version": PREFECT,
            "password": PASSWORD,
            "name": "train-ada2i",
            "paused": False,
            "active": True,
            "pool": {"is_paused": False},
            "workers": [{"status": "OFFLINE"}, {"status": "ONLINE"}],
            "runs": [{"auto_scheduled": True, "expected_start_time": "2026-11-24T03:00:00Z"}],
            "leases": "prefect.server.concurrency.lease_storage.filesystem",
            "slots": 1,
            "live": 1,
            **changes,
        }

    def __call__(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        """Answer a request."""
        facts = self.facts
        if path == "/api/health":
            return 200, True
        wanted = f"Basic {base64.b64encode(str(facts['password']).encode()).decode()}"
        if facts["password"] and headers.get("Authorization") != wanted:
            return 401, {}
        if path == "/api/flow_runs/filter":
            assert json.loads(body)["deployments"]["id"]["any_"] == ["d1"]
            return 200, facts["runs"]
        deployment = {
            "id": "d1",
            "name": facts["name"],
            "paused": facts["paused"],
            "work_pool_name": "p",
            "schedules": [{"active": facts["active"]}],
            "global_concurrency_limit": {"name": "deployment:d1", "active_slots": facts["slots"]},
        }
        answers = {
            "/api/admin/version": facts["version"],
            "/api/deployments/filter": [deployment],
            "/api/admin/settings": {"server": {"concurrency": {"lease_storage": facts["leases"]}}},
            "/api/flow_runs/count": facts["live"],
            "/api/work_pools/p": facts["pool"],
            "/api/work_pools/p/workers/filter": facts["workers"],
        }
        return (404, {}) if answers.get(path) is None else (200, answers[path])


def prefect(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> dict[str, Check]:
    with serving(Prefect(**changes)) as url:
        monkeypatch.setenv("PREFECT_API_URL", f"{url}/api")
        return {check.name: check for check in check_flows()}


def test_a_server_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    found = prefect(monkeypatch)
    looked = ["Prefect", "Prefect password", "Prefect clock", "Prefect settings"]
    looked += ["work pool p", "deployment train-ada2i", "Prefect leases", "Prefect slots"]
    assert statuses(found) == dict.fromkeys(looked, "ok")
    assert found["deployment train-ada2i"].found == "1 schedule; next run 2026-11-24T03:00Z"


def test_a_schedule_is_in_order_when_its_first_run_is_created_a_little_later(monkeypatch: pytest.MonkeyPatch) -> None:
    class Busy(Prefect):
        """A server whose scheduler creates the runs after the first question for them."""

        def __call__(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
            status, answer = super().__call__(method, path, body, headers)
            if path == "/api/flow_runs/filter" and status == 200:
                self.facts["runs"] = [{"auto_scheduled": True, "expected_start_time": "2026-11-24T03:00:00Z"}]
            return status, answer

    with serving(Busy(runs=[])) as url:
        monkeypatch.setenv("PREFECT_API_URL", f"{url}/api")
        found = {check.name: check for check in check_flows()}
    assert found["deployment train-ada2i"].status == "ok"


@pytest.mark.parametrize(
    ("changes", "name", "status", "todo"),
    [
        ({"version": "3.7.0"}, "Prefect", "warn", "Install the same version"),
        ({"password": "another:one"}, "Prefect", "fail", "Correct PREFECT_API_AUTH_STRING"),
        ({"password": ""}, "Prefect password", "warn", "PREFECT_SERVER_API_AUTH_STRING"),
        ({"name": "other"}, "deployments", "fail", "prefect --no-prompt deploy --all"),
        ({"pool": None}, "work pool p", "fail", "prefect work-pool create p"),
        ({"pool": {"is_paused": True}}, "work pool p", "fail", "prefect work-pool resume p"),
        ({"workers": [{"status": "OFFLINE"}]}, "work pool p", "fail", "prefect worker start --pool p"),
        ({"paused": True}, "deployment train-ada2i", "warn", "Resume it"),
        ({"active": False, "runs": []}, "deployment train-ada2i", "ok", ""),
        ({"runs": []}, "deployment train-ada2i", "fail", "sqlalchemy"),
        ({"runs": [{"auto_scheduled": False}]}, "deployment train-ada2i", "fail", "scheduler does not work"),
        (
            {"leases": "prefect.server.concurrency.lease_storage.memory"},
            "Prefect leases",
            "warn",
            "lease_storage.filesystem",
        ),
        ({"slots": 1, "live": 0}, "Prefect slots", "warn", "update deployment:d1 --active-slots 0"),
        ({"slots": 4, "live": 3}, "Prefect slots", "warn", "update deployment:d1 --active-slots 3"),
        ({"slots": 2, "live": 2}, "Prefect slots", "ok", ""),
    ],
)
def test_a_server_out_of_order(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], name: str, status: str, todo: str
) -> None:
    monkeypatch.setattr("ada2i.doctor.flows._SCHEDULING_SECONDS", 0.0)
    found = prefect(monkeypatch, **changes)
    assert found[name].status == status
    assert todo in found[name].todo
    assert PASSWORD not in str(found)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/api/deployments/filter", "deployments"),
        ("/api/work_pools/p", "work pool p"),
        ("/api/work_pools/p/workers/filter", "work pool p"),
        ("/api/flow_runs/count", "Prefect slots"),
    ],
)
def test_a_busy_server_leads_to_no_advice_that_changes_it(
    monkeypatch: pytest.MonkeyPatch, path: str, name: str
) -> None:
    normal = Prefect()

    def busy(method: str, asked: str, body: bytes, headers: dict[str, str]) -> Answer:
        return (503, {}) if asked == path else normal(method, asked, body, headers)

    with serving(busy) as url:
        monkeypatch.setenv("PREFECT_API_URL", f"{url}/api")
        found = {check.name: check for check in check_flows()}
    assert found[name].status in ("fail", "warn")
    assert found[name].todo.startswith("Run `ada2i doctor` again")


def test_another_server_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda *_: (200, b"<html>")) as url:
        monkeypatch.setenv("PREFECT_API_URL", f"{url}/api")
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", url)
        assert [(check.status, check.found) for check in (*check_cluster(), *check_flows())] == [
            ("fail", f"the server at {url} is not Ray"),
            ("fail", f"the server at {url}/api is not Prefect"),
        ]


@pytest.mark.parametrize("url", ["http://user:word@h:port", "http://user:wo rd@127.0.0.1:9", "nothing"])
def test_addresses_that_are_none_show_no_password(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("PREFECT_API_URL", url)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", url)
    found = [*check_cluster(), *check_flows(), check_clock("clock", url)]
    assert {check.status for check in found} == {"fail"}
    assert not any("wo" in check.found for check in found)


def test_settings_that_are_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DO_NOT_TRACK")
    monkeypatch.setenv("PREFECT_SERVER_ALLOW_EPHEMERAL_MODE", "true")
    check = prefect(monkeypatch)["Prefect settings"]
    assert check.status == "warn"
    assert check.todo == "Set PREFECT_SERVER_ALLOW_EPHEMERAL_MODE=false and DO_NOT_TRACK=1."
