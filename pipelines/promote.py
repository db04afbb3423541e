"""Flow `promote-ada2i`: the gate, and behind it the alias; or past it, with a reason that is recorded.

Order, retries and artifacts only: what a step does is in ``ada2i``.
"""

from typing import Any

from prefect import flow, get_run_logger, runtime
from prefect.client.schemas.objects import State

from ada2i import storage
from ada2i.promotion.gate import holding, last_verdict, pass_gate, resolve_rules
from ada2i.promotion.page import headline
from ada2i.registry.aliases import CHAMPION, Move
from ada2i.registry.references import resolve
from ada2i.registry.verdicts import Verdict
from ada2i.registry.versions import Version
from ada2i.training.request import default_root
from pipelines.alerts import alert
from pipelines.retries import retried
from pipelines.summary import conclude


@flow(name="promote-ada2i", on_failure=[alert], on_crashed=[alert])
def promote_ada2i(
    version: str,
    rules: dict[str, Any] = {},  # noqa: B006 - Prefect shows the default in its form
    override: str | None = None,
    alias: str = CHAMPION,
    root: str | None = None,
) -> State[str]:
    """Judge a version against the one in use, and promote it if it may be.

    Args:
        version: MODEL@NUMBER, or MODEL for its newest.
        rules: Fields of the gate's rules that are other than usual.
        override: Why to promote it in spite of a refusal; recorded with the verdict.
        alias: Which alias.
        root: Where everything is kept; by default ADA2I_ROOT.

    Returns:
        URI of the version, whatever became of it.
    """
    resolve_rules(rules)
    root = storage.normalise(root or default_root())
    challenger = look_up(root, version)
    verdict = gate(root, challenger, rules, alias=alias, override=override)
    held = look_for_alias(root, challenger, alias)
    return conclude(root, challenger, why="The gate was not asked.", verdict=verdict, held=held, trained=False)


@retried("version")
def look_up(root: str, reference: str) -> Version:
    """Return the version that a reference names; later steps are about that one."""
    return resolve(root, reference)


@retried()
def gate(
    root: str, challenger: Version, rules: dict[str, Any], *, alias: str = CHAMPION, override: str | None = None
) -> Verdict | None:
    """Judge a version, keep the verdict, and move the alias if it says so; a retry finds what it already did.

    A version that has the alias is not judged for it: one promoted by hand may have no verdict.
    """
    if holding(root, challenger, alias):
        return last_verdict(root, challenger, alias)
    by = f"{runtime.flow_run.flow_name} {runtime.flow_run.id}"
    verdict = pass_gate(root, challenger, resolve_rules(rules), by=by, alias=alias, override=override)
    get_run_logger().info("Verdict %d: %s", verdict.n, headline(verdict.judgement))
    return verdict


@retried("alias")
def look_for_alias(root: str, version: Version, alias: str = CHAMPION) -> Move | None:
    """Return the move by which a version has an alias now: somebody may have moved it after the verdict."""
    return holding(root, version, alias)
