"""Flow `tune-ada2i`: searches for the best config, trains it, tests it once and registers the result.

The steps are those of ``usecases.search``.
"""

from typing import Any

from prefect import flow, runtime, task
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State

from ada2i import usecases
from ada2i.search.records import SearchOutcome
from ada2i.search.report import final_lines, search_markdown
from ada2i.search.request import SearchOptions, SearchSpec
from ada2i.store import Store
from ada2i.training.request import TrainSpec, with_named
from pipelines.defaults import features_of
from pipelines.hooks import FlowHooks
from pipelines.jobs import stop_jobs
from pipelines.summary import conclude, failed


@flow(name="tune-ada2i", on_cancellation=[stop_jobs], on_crashed=[stop_jobs, failed], on_failure=[failed])
def tune_ada2i(  # noqa: PLR0917
    features: str | None = None,
    preset: str = "corrected",
    settings: str | None = None,
    modalities: str | None = None,
    space: dict[str, Any] = {},  # noqa: B006 - Prefect shows the default in its form
    vary: list[str] = [],  # noqa: B006
    options: SearchOptions = SearchOptions(),  # noqa: B008 - frozen
    epochs: int | None = None,
    seeds: list[int] = [1, 2, 3],  # noqa: B006
    workers: int = 1,
    overrides: dict[str, Any] = {},  # noqa: B006
    model: str | None = None,
    root: str | None = None,
    allow: list[str] = [],  # noqa: B006
) -> State[str]:
    """Search for a config on dev, retrain the best configs and the given one, and register the winner.

    Args:
        features: `demo` (synthetic), a feature set, or a table to import; by default ADA2I_FEATURES, else Prefect's
            variable `ada2i_features`, else `demo`.
        preset: Which Ada2I.
        settings: Published settings by dataset; by default those of the features' dataset.
        modalities: Letters of t(ext), a(udio), v(isual), in order; by default all that the features hold.
        space: Maps config fields to what to draw from, such as {"kind": "uniform", "low": 0, "high": 1}; by default the
            preset's.
        vary: The same, written as FIELD=V1,V2 or FIELD=KIND:LOW:HIGH.
        options: Numbers of trials, finalists and so on.
        epochs: Epochs of each trial and final; by default the config's.
        seeds: Seeds of the finals, which decide the winner.
        workers: Training workers of each trial.
        overrides: Config fields by dotted name, for every trial.
        model: Name in the registry; by default ada2i- and the dataset.
        root: Where everything is stored; by default ADA2I_ROOT.
        allow: Codes of audit findings to ignore.

    Returns:
        URI of the registered version.
    """
    named = {"training.epochs": epochs, "training.seeds": seeds, "resources.workers": workers}
    base = TrainSpec(
        features=features_of(features),
        preset=preset,
        settings=settings,
        modalities=modalities,
        overrides=with_named(overrides, named),
        allow=tuple(allow),
    )
    spec = SearchSpec(spec=base, space=space, vary=tuple(vary), options=options)
    flow_run, store = str(runtime.flow_run.id), Store.open(root)
    found, outcome = usecases.search(
        spec, store, hooks=FlowHooks(), search_id=flow_run, model=model, flow_run_id=flow_run
    )
    return conclude(store, outcome, more=publish(found))


@task(name="artifacts")
def publish(outcome: SearchOutcome) -> str:
    """Show the finals as a table in Prefect, and return the search as markdown."""
    description = f"Finals on dev, {outcome.version}"
    create_table_artifact(key="ada2i-finals", table=final_lines(outcome.search), description=description)
    return search_markdown(outcome)
