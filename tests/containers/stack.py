"""What a user of the containers' published ports sees: runs of flows, trainings on Ray, panels of dashboards."""

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx

from infra.services import REPOSITORY
from tests.containers.host import Host
from tests.runs import until

PREFECT, RAY, PROMETHEUS = "http://127.0.0.1:4200/api", "http://127.0.0.1:8265", "http://127.0.0.1:9090"
_ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def prefect(host: Host, method: str, path: str, **body: Any) -> Any:
    """Ask Prefect's server."""
    user, password = host.secret("prefect-auth").split(":")
    answer = httpx.request(method, PREFECT + path, json=body or None, auth=(user, password), timeout=60.0)
    answer.raise_for_status()
    return answer.json()


def start(host: Host, name: str, **parameters: Any) -> str:
    """Request a run of a deployment; return its id."""
    deployment = prefect(host, "GET", f"/deployments/name/{name}/{name}")["id"]
    run: str = prefect(host, "POST", f"/deployments/{deployment}/create_flow_run", parameters=parameters)["id"]
    return run


def outcome(host: Host, run: str) -> str:
    """Wait for the end of a flow run; return the name of its state."""

    def ended() -> str:
        state = prefect(host, "GET", f"/flow_runs/{run}")["state"]
        return str(state["name"]) if state["type"] in _ENDED else ""

    return str(until(ended, f"the end of {run}", 600.0))


def workers(host: Host, run: str) -> list[dict[str, Any]]:
    """Return the live workers of a run's training; none before it trains."""
    headers = {"Authorization": f"Bearer {host.secret('ray-token')}"}
    shown = httpx.get(f"{RAY}/api/train/v2/runs/v1", headers=headers, timeout=60.0).raise_for_status().json()
    found = [each for each in shown["train_runs"] if each["name"] == run and each["status"] == "RUNNING"]
    return list(found[-1]["attempts"][-1]["workers"]) if found and found[-1]["attempts"] else []


def panels(dashboard: str) -> Iterator[tuple[str, str]]:
    """Yield the title and expression of each panel, for all runs and models."""
    shown = json.loads((REPOSITORY / "infra" / "dashboards" / f"{dashboard}.json").read_text())
    for panel in shown["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], re.sub(r"\$\w+", ".*", target["expr"])


def seconds(expression: str, start: float, end: float) -> set[int]:
    """Return the seconds between two times at which an expression has a value."""
    query = {"query": expression, "start": str(start), "end": str(end), "step": "1"}
    answer = httpx.get(f"{PROMETHEUS}/api/v1/query_range", params=query, timeout=60.0).raise_for_status()
    return {int(at) for series in answer.json()["data"]["result"] for at, _ in series["values"]}
