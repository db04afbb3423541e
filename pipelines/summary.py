"""One page about the outcome of a run: what happened, why, and where the results are stored."""

import os
from collections.abc import Iterator
from typing import Any

from prefect import runtime
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow
from prefect.states import Completed
from prefect.utilities.urls import url_for

from ada2i import storage
from ada2i.promotion.page import page
from ada2i.registry.versions import Version, version_uri
from ada2i.reports.report import markdown_text
from ada2i.store import Store
from ada2i.usecases import Outcome
from pipelines.alerts import alert
from pipelines.plugin import OUTCOME

KEY = OUTCOME


def conclude(store: Store, outcome: Outcome, *, more: str = "") -> State[str]:
    """Show the outcome of a run as one page, and return the flow's state, whose result is the version's URI.

    Args:
        store: The root.
        outcome: How the run ended.
        more: Markdown to append.
    """
    version, verdict = outcome.version, outcome.verdict
    blocks = [f"# {outcome.what}", markdown_text(outcome.reason), "\n".join(_links(store.root, version))]
    blocks += [page(verdict.judgement, heading="## The gate's verdict")] if verdict else []
    description = f"{outcome.what}: {version.name}"
    create_markdown_artifact(key=KEY, markdown="\n\n".join([*blocks, more]), description=description)
    return Completed(name=outcome.what, message=outcome.reason, data=version_uri(store.root, version))


def failed(flow: Flow[Any, Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Report that a run failed, and send the alert; Prefect calls it with these argument names."""
    text = f"# {state.name}\n\n{markdown_text(state.message or 'Prefect gives no reason.')}\n"
    artifact = ArtifactCreate(key=KEY, type="markdown", description=state.name, data=text, flow_run_id=flow_run.id)
    try:
        with get_client(sync_client=True) as client:
            client.create_artifact(artifact)
    finally:
        alert(flow, flow_run, state)


def _links(root: str, version: Version) -> Iterator[str]:
    """Yield list items: pages that a browser opens as links, other locations as code."""
    uri = version_uri(root, version)
    yield f"- version: `{version.name}` in `{uri}`"
    yield f"- report: `{storage.join(uri, 'report.html')}`; `ada2i registry open {version.name}` shows it"
    yield f"- features: `{version.features.uri}`"
    if page := url_for("flow-run", obj_id=runtime.flow_run.id):  # None without a server that stays
        yield f"- [flow run]({page})"
    trained_by = version.flow_run_id if version.flow_run_id != str(runtime.flow_run.id) else None
    if trained_by and (page := url_for("flow-run", obj_id=trained_by)):
        yield f"- trained by [flow run {trained_by}]({page})"
    if version.ray_job_id and (page := ray_job_page(version.ray_job_id)):
        yield f"- trained by [job {version.ray_job_id} in Ray's dashboard]({page})"


def ray_job_page(job: str) -> str | None:
    """Return the page of a job in Ray's dashboard; None without Ray."""
    page = ray_jobs_page(os.environ.get("RAY_API_SERVER_ADDRESS", ""))
    return f"{page}/{job}" if page else None


def ray_jobs_page(address: str) -> str:
    """Return the page of a cluster's jobs, at the configured cluster's address for browsers if there is one."""
    configured = address == os.environ.get("RAY_API_SERVER_ADDRESS", "")
    shown = (configured and os.environ.get("ADA2I_RAY_DASHBOARD_URL")) or address
    return f"{storage.public(shown)}/#/jobs" if shown else ""
