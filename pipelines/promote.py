"""Flow `promote-ada2i`: judges a version and moves an alias; ``override`` promotes despite a refusal, on record.

The steps are those of ``usecases.promote``.
"""

from typing import Any

from prefect import flow, runtime
from prefect.client.schemas.objects import State

from ada2i import usecases
from ada2i.registry.aliases import CHAMPION
from ada2i.store import Store
from ada2i.usecases import Gate
from pipelines.alerts import alert
from pipelines.hooks import FlowHooks
from pipelines.summary import conclude


@flow(name="promote-ada2i", on_failure=[alert], on_crashed=[alert])
def promote_ada2i(  # noqa: PLR0917
    version: str,
    rules: dict[str, Any] = {},  # noqa: B006 - Prefect shows the default in its form
    override: str | None = None,
    alias: str = CHAMPION,
    again: bool = False,
    root: str | None = None,
    code: list[str] = [],  # noqa: B006
) -> State[str]:
    """Judge a version against the one that has the alias, and promote it if the rules allow it.

    Args:
        version: MODEL@NUMBER, or MODEL for its newest version.
        rules: Fields of the gate's rules that differ from the defaults.
        override: The reason to promote despite a refusal; recorded with the verdict.
        alias: The alias to move.
        again: Judge the version even if it was judged with other rules or was rolled back.
        root: Where everything is stored; by default ADA2I_ROOT.
        code: package.module:Class that the judged versions may name for their models; their code runs.

    Returns:
        URI of the version, whether promoted or not.
    """
    gate = Gate(rules, by=f"{runtime.flow_run.flow_name} {runtime.flow_run.id}", code=tuple(code))
    store = Store.open(root)
    hooks = FlowHooks()
    outcome = usecases.promote(version, store, gate=gate, hooks=hooks, alias=alias, override=override, again=again)
    return conclude(store, outcome)
