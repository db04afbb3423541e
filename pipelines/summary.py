"""How a run ended, on one page: what happened, why, and where everything is."""

import os
from typing import Any, Literal

from prefect import runtime
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow
from prefect.states import Completed
from prefect.utilities.urls import url_for

from ada2i import storage
from ada2i.promotion.page import headline, page
from ada2i.registry.aliases import Move
from ada2i.registry.verdicts import Verdict
from ada2i.registry.versions import Version, version_uri
from ada2i.reports.report import Row, markdown_table, markdown_text
from pipelines.alerts import alert

KEY = "ada2i-outcome"

What = Literal["Skipped", "Registered", "Promoted", "Refused"]


def conclude(
    root: str, version: Version, *, why: str, verdict: Verdict | None, held: Move | None, trained: bool, more: str = ""
) -> State[str]:
    """Show how a run ended, and return the flow's state, whose result is the version's URI.

    Args:
        root: The storage root.
        version: The version that the run made, or found.
        why: The reason, where there is no verdict.
        verdict: What the gate said, if it was asked.
        held: The move by which the version has the alias now, if it was asked for and has it.
        trained: Whether the run made the version.
        more: Markdown to follow.
    """
    what, reason = _what(verdict, held, trained=trained), _reason(verdict, held, why)
    blocks = [f"# {what}", markdown_text(reason), markdown_table(_links(root, version))]
    blocks += [page(verdict.judgement).replace("# ", "## ", 1)] if verdict else []
    create_markdown_artifact(key=KEY, markdown="\n\n".join([*blocks, more]), description=f"{what}: {version.name}")
    return Completed(name=what, message=reason, data=version_uri(root, version))


def _what(verdict: Verdict | None, held: Move | None, *, trained: bool) -> What:
    if held:
        return "Promoted"
    if verdict and verdict.judgement.decision == "refuse":
        return "Refused"
    return "Registered" if trained or verdict else "Skipped"


def _reason(verdict: Verdict | None, held: Move | None, why: str) -> str:
    """Return why a run ended as it did: the alias decides, as people move it whatever the gate says."""
    said = headline(verdict.judgement) if verdict else why
    passed = verdict is not None and verdict.judgement.decision == "promote"
    if held and not passed:
        return f"{held.model}@{held.number} is {held.alias}: {held.reason}. {said}"
    if passed and not held:
        return f"{said} It is not now: the alias was moved on, or back."
    return said


def failed(flow: Flow[Any, Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Show that a run failed, and tell whom the environment names; Prefect calls it with these names."""
    text = f"# {state.name}\n\n{markdown_text(state.message or 'No reason is known.')}\n"
    artifact = ArtifactCreate(key=KEY, type="markdown", description=state.name, data=text, flow_run_id=flow_run.id)
    try:
        with get_client(sync_client=True) as client:
            client.create_artifact(artifact)
    finally:
        alert(flow, flow_run, state)


def _links(root: str, version: Version) -> list[Row]:
    uri = version_uri(root, version)
    rows = {
        "flow run": url_for("flow-run", obj_id=runtime.flow_run.id),
        "version": f"{version.name}, {uri}",
        "trained by flow run": version.flow_run_id,
        "trained by Ray job": version.ray_job_id,
        "job in Ray's dashboard": _dashboard(version.ray_job_id),
        "features": version.features.uri,
        "report": storage.join(uri, "report.html"),
    }
    return [{"what": what, "where": where} for what, where in rows.items() if where]


def _dashboard(job: str | None) -> str | None:
    address = os.environ.get("RAY_API_SERVER_ADDRESS")
    return f"{address}/#/jobs/{job}" if address and job else None
