"""Flow `tune-ada2i`: features and a search space to the best config found, trained, tested once and registered.

Order, retries and artifacts only: what a step does is in ``ada2i``. Steps exchange URIs, so no tensor ever enters a
result store.
"""

from typing import Any

from prefect import flow, runtime, task
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State

from ada2i import storage
from ada2i.jobs.events import Event
from ada2i.records import RunResult, run_uri
from ada2i.registry.versions import Version, check_model_name
from ada2i.search.progress import line
from ada2i.search.records import SearchOutcome, SearchResult
from ada2i.search.report import final_lines, search_files, search_markdown
from ada2i.search.request import JOB, RESULT, SearchOptions, SearchSpec, is_done, prepare_search
from ada2i.training.request import TrainSpec, default_root, with_named
from pipelines import progress
from pipelines.jobs import stop_jobs
from pipelines.retries import retried
from pipelines.summary import conclude, failed
from pipelines.train import evaluate, register_version


@flow(name="tune-ada2i", on_cancellation=[stop_jobs], on_crashed=[stop_jobs, failed], on_failure=[failed])
def tune_ada2i(  # noqa: PLR0917
    features: str = "demo",
    preset: str = "corrected",
    settings: str | None = None,
    modalities: str = "tav",
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
    """Search for a config on dev, train the best and the given one again, and register the winner.

    Args:
        features: `demo` (synthetic), the URI of a feature set, or of a table to import.
        preset: Which Ada2I.
        settings: Published settings by dataset; by default the dataset's own.
        modalities: Letters of t(ext), a(udio), v(isual), in order.
        space: By config field what to draw from, such as {"kind": "uniform", "low": 0, "high": 1}; by default the
            preset's.
        vary: The same as FIELD=V1,V2 or FIELD=KIND:LOW:HIGH.
        options: How many trials, finalists and so on.
        epochs: Of trials and finals; by default the config's.
        seeds: Of the finals, which decide.
        workers: Training workers of each trial.
        overrides: Config fields by dotted name, for every trial.
        model: Name in the registry; by default ada2i- and the dataset.
        root: Where everything is kept; by default ADA2I_ROOT.
        allow: Codes of an audit's findings to train in spite of.

    Returns:
        URI of the registered version.
    """
    if model is not None:
        check_model_name(model)
    root = storage.normalise(root or default_root())
    named = {"training.epochs": epochs, "training.seeds": seeds, "resources.workers": workers}
    spec = TrainSpec(
        features=features,
        preset=preset,
        settings=settings,
        modalities=modalities,
        overrides=with_named(overrides, named),
        allow=tuple(allow),
    )
    asked = SearchSpec(spec=spec, space=space, vary=tuple(vary), options=options)
    uri = prepare(asked, root, str(runtime.flow_run.id))
    search(uri)
    result = SearchResult.load(storage.join(uri, RESULT))
    run = run_uri(root, result.run_id)
    evaluate(run)
    version = register_version(run, root, model)
    more = publish(uri, run, version)
    why = f"{version.name} is the best of {len(result.trials)} trials and the config as it was, on dev."
    return conclude(root, version, why=why, verdict=None, held=None, trained=True, more=more)


@retried("features")
def prepare(spec: SearchSpec, root: str, search_id: str) -> str:
    """Check the request, make sure that the features exist, and return the search's URI."""
    return prepare_search(spec, root=root, search_id=search_id)


@retried()
def search(uri: str) -> None:
    """Search as a Ray job; a retry attaches to the live job, or goes on with the trials that are left."""
    if not is_done(uri):
        Follower().run(JOB, uri)


@task(name="artifacts")
def publish(uri: str, run: str, version: Version) -> str:
    """Write the search's tables and picture beside it, show the finals in Prefect, and return all as markdown."""
    result = SearchResult.load(storage.join(uri, RESULT))
    tested = RunResult.load(storage.join(run, "result.json")).test_summary
    outcome = SearchOutcome(search=result, version=version.name, test_summary=tested)
    for file, data in search_files(outcome).items():
        storage.put(storage.join(uri, file), data)
    create_table_artifact(key="ada2i-finals", table=final_lines(result), description=f"Finals on dev, {version.name}")
    return search_markdown(outcome)


class Follower(progress.Follower):
    """Follows a search."""

    def __init__(self) -> None:
        self.done = self.total = 0
        super().__init__(key="ada2i-search", description="Trials, then finals done")

    def take(self, event: Event) -> None:
        """Show the plan, and each trial and final that ended."""
        if event["kind"] == "searching":
            self.done, self.total = event["done"], event["trials"]
            self.log.info(line(event))
        elif event["kind"] == "finals":
            self.done, self.total = 0, event["left"]
            self.log.info(line(event))
        elif event["kind"] in ("trial", "final", "final_failed"):
            self.done += 1
            self.log.info(line(event))
            self.progress(100.0 * self.done / max(self.total, 1))
