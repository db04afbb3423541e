"""Prefect plugin for ``prefect deployment run train-ada2i --watch``: the bare name, and the outcome at the end.

Prefect's client accepts ``FLOW/DEPLOYMENT`` only. This plugin wraps its look-up: a name without a slash means the one
deployment with that name. It also wraps the watching of a run, which then ends with the first lines of the outcome's
page. If Prefect has changed, nothing is wrapped, and the full name still works.
"""

import functools
import inspect
import re
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect.plugins import HookContext, register_hook

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

PREFECT_PLUGIN_API_REQUIRES = ">=0.1,<1"
OUTCOME = "ada2i-outcome"  # key of the page about a run's outcome
_METHOD = "read_deployment_by_name"
_WRAPPED = "_takes_bare_names"

Lookup = Callable[["PrefectClient", str], Awaitable["DeploymentResponse"]]


@register_hook
def setup_environment(*, ctx: HookContext) -> None:
    """Wrap the client's look-up, once per process."""
    try:
        from prefect.client.orchestration import PrefectClient
        from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName  # noqa: F401  for look_up
    except ImportError as problem:
        ctx.logger_factory(__name__).debug("Bare deployment names are off: %s", problem)
        return
    found = getattr(PrefectClient, _METHOD, None)
    if not inspect.iscoroutinefunction(found) or list(inspect.signature(found).parameters) != ["self", "name"]:
        ctx.logger_factory(__name__).debug("Bare deployment names are off: Prefect's client has changed.")
        return
    if not hasattr(found, _WRAPPED):
        setattr(PrefectClient, _METHOD, accept_bare_name(found))
    if "--watch" in sys.argv:
        _show_outcomes()


def accept_bare_name(by_full_name: Lookup) -> Lookup:
    """Return a look-up that also accepts a name without its flow.

    Args:
        by_full_name: The look-up by ``FLOW/DEPLOYMENT``.
    """

    @functools.wraps(by_full_name)
    async def look_up(client: "PrefectClient", name: str) -> "DeploymentResponse":
        return await (by_full_name(client, name) if "/" in name else _only_one_named(client, name))

    setattr(look_up, _WRAPPED, True)
    return look_up


async def _only_one_named(client: "PrefectClient", name: str) -> "DeploymentResponse":
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName
    from prefect.exceptions import ObjectNotFound

    criteria = DeploymentFilter(name=DeploymentFilterName(any_=[name]))
    found = await client.read_deployments(deployment_filter=criteria, limit=2)
    if not found:
        raise ObjectNotFound(http_exc=LookupError(name))
    if len(found) > 1:
        raise ValueError(
            f"A bare name must belong to one deployment, but several are called {name}. Write FLOW/{name}."
        )
    return found[0]


def _show_outcomes() -> None:
    """Make the end of watching a run print the first lines of the outcome's page."""
    import httpx
    from prefect.cli import deployment, flow_runs_watching

    by_prefect = flow_runs_watching.watch_flow_run

    @functools.wraps(by_prefect)
    async def watch(flow_run_id: UUID, console: Any, *args: Any, **options: Any) -> Any:
        finished = await by_prefect(flow_run_id, console, *args, **options)
        try:
            lines = await _outcome(flow_run_id)
        except httpx.HTTPError as problem:
            lines = f"Prefect did not return the run's page ({type(problem).__name__}); see it in Prefect's UI."
        if lines:
            console.print(lines, markup=False, highlight=False, soft_wrap=True)
        return finished

    flow_runs_watching.watch_flow_run = deployment.watch_flow_run = watch


async def _outcome(flow_run_id: UUID) -> str:
    """Return the page's lines before its first section as plain text, or nothing if the run left no page."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
    from prefect.client.schemas.sorting import ArtifactSort

    own, key = ArtifactFilterFlowRunId(any_=[flow_run_id]), ArtifactFilterKey(any_=[OUTCOME])
    async with get_client() as client:
        pages = ArtifactFilter(flow_run_id=own, key=key)
        found = await client.read_artifacts(artifact_filter=pages, sort=ArtifactSort.CREATED_DESC, limit=1)
    page = str(found[0].data) if found else ""
    return re.sub(r"\\(.)", r"\1", page.partition("\n## ")[0].strip().removeprefix("# "))
