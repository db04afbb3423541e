"""Flow `train-ada2i`: features, training on Ray, evaluation, registration, artifacts.

Order, retries and artifacts only: what a step does is in ``ada2i``. Steps exchange URIs, so no tensor ever enters a
result store.
"""

import os
from typing import Any

from prefect import flow, get_run_logger, runtime, task
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow

from ada2i import storage
from ada2i.evaluation.evaluate import evaluate_run
from ada2i.evaluation.report import markdown_summary, scores_table
from ada2i.extraction import request as extraction
from ada2i.extraction.config import NONE
from ada2i.jobs import client
from ada2i.jobs.cluster import cluster
from ada2i.jobs.events import Event
from ada2i.modalities import MODALITIES
from ada2i.records import EpochRecord, RunRequest, RunResult
from ada2i.registry.versions import Version, check_model_name, register, version_uri
from ada2i.training import launch, progress
from ada2i.training.request import Wish, check, default_root, prepare, with_named
from pipelines.extract import extracted, extraction_id
from pipelines.retries import RETRY_SECONDS, retry_if_transient


def stop_job(flow: Flow[Any, Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001
    """Stop the run's Ray jobs when its flow is cancelled or crashes; Prefect calls it with these names."""
    address = os.environ.get("RAY_API_SERVER_ADDRESS")
    if address:  # a private cluster ends with its flow
        for run_id in (extraction_id(str(flow_run.id)), str(flow_run.id)):
            client.stop(address, run_id)


@flow(name="train-ada2i", on_cancellation=[stop_job], on_crashed=[stop_job])
def train_ada2i(  # noqa: PLR0917
    features: str = "demo",
    preset: str = "corrected",
    settings: str | None = None,
    modalities: str = "tav",
    workers: int | None = None,
    seeds: list[int] | None = None,
    overrides: dict[str, Any] = {},  # noqa: B006 - Prefect shows the default in its form
    model: str | None = None,
    root: str | None = None,
    allow: list[str] = [],  # noqa: B006
) -> str:
    """Train Ada2I and register the result.

    Args:
        features: `demo` (synthetic), the URI of a feature set, or of a table to import; or a raw corpus, whose features
            are extracted by the default encoders: `demo-media` (synthetic), or corpus:KIND:LOCATION.
        preset: Which Ada2I.
        settings: Published settings by dataset; by default the dataset's own.
        modalities: Letters of t(ext), a(udio), v(isual), in order.
        workers: Training workers; by default the config's.
        seeds: One model is trained for each, and the best on dev is registered; by default the config's.
        overrides: Config fields by dotted name.
        model: Name in the registry; by default ada2i- and the dataset.
        root: Where everything is kept; by default ADA2I_ROOT.
        allow: Codes of an audit's findings to train in spite of.

    Returns:
        URI of the registered version.
    """
    if model is not None:
        check_model_name(model)
    root = storage.normalise(root or default_root())
    chosen = with_named(overrides, {"resources.workers": workers, "training.seeds": seeds})
    flow_run = str(runtime.flow_run.id)
    wish = Wish(
        features=features,
        preset=preset,
        settings=settings,
        modalities=modalities,
        overrides=chosen,
        allow=tuple(allow),
    )
    if raw := extraction.parse(features):
        kind, location = raw
        wanted = check(wish).model.modalities  # mistakes show before hours of extraction
        encoders = {m: NONE for m in MODALITIES if m not in wanted}
        made = extracted(extraction.Wish(kind=kind, location=location, encoders=encoders), root, flow_run)
        wish = wish.model_copy(update={"features": made})
    run = prepare_run(wish, root, flow_run)
    train(run)
    evaluate(run)
    version = register_version(run, root, model)
    publish(run, version, root)
    return version_uri(root, version)


@task(name="features", retries=2, retry_delay_seconds=RETRY_SECONDS, retry_condition_fn=retry_if_transient)
def prepare_run(wish: Wish, root: str, run_id: str) -> str:
    """Check the request, make sure that the features exist, and return the run's URI."""
    uri = prepare(wish, root=root, run_id=run_id)
    request = RunRequest.load(storage.join(uri, "request.json"))
    get_run_logger().info("Features: %s", request.features.uri)
    return uri


@task(retries=2, retry_delay_seconds=RETRY_SECONDS, retry_condition_fn=retry_if_transient)
def train(run: str) -> None:
    """Train as a Ray job; a retry attaches to the live job, or resumes from the newest checkpoint."""
    follower = Follower(run)
    with cluster() as ray:
        launch.launch(run, address=ray.address, on_event=follower)
    follower.done()


@task(retries=2, retry_delay_seconds=RETRY_SECONDS, retry_condition_fn=retry_if_transient)
def evaluate(run: str) -> None:
    """Evaluate the selected checkpoints on test, once."""
    result = evaluate_run(run)
    weighted = result.test_summary["weighted_f1"]
    get_run_logger().info("Test weighted F1: %.4f over %d seeds", weighted.mean, len(weighted.values))


@task(name="register", retries=2, retry_delay_seconds=RETRY_SECONDS, retry_condition_fn=retry_if_transient)
def register_version(run: str, root: str, model: str | None) -> Version:
    """Register the run's best seed; a retry finds the version that it already made."""
    version = register(run, root=root, model=model)
    get_run_logger().info("Registered %s@%d", version.model, version.number)
    return version


@task(name="artifacts")
def publish(run: str, version: Version, root: str) -> None:
    """Show the result in Prefect: scores, summary and a link to the report."""
    result = RunResult.load(storage.join(run, "result.json"))
    report = storage.join(version_uri(root, version), "report.html")
    title = f"{version.model}@{version.number}"
    create_table_artifact(key="ada2i-scores", table=scores_table(result), description=f"Test scores of {title}")
    create_markdown_artifact(
        key="ada2i-summary", markdown=f"{markdown_summary(result)}\n\nReport: `{report}`\n", description=title
    )
    create_link_artifact(key="ada2i-report", link=report, link_text=f"Report of {title}")


class Follower:
    """Carries a job's events into the flow's log and a progress artifact; other lines at debug level."""

    def __init__(self, run: str) -> None:
        self.training = RunRequest.load(storage.join(run, "request.json")).config.training
        self.log = get_run_logger()
        self.artifact = create_progress_artifact(progress=0.0, key="ada2i-training", description="Epochs done")

    def __call__(self, event: Event | str) -> None:
        """Take one event."""
        if isinstance(event, str):
            self.log.debug(event)
        elif event["kind"] == "epoch":
            self._epoch(event["seed"], EpochRecord.model_validate(event["record"]))
        elif event["kind"] == "first_step":
            self.log.info("First optimizer step %.1f s after the driver's start", event["seconds"])

    def done(self) -> None:
        """Take the end: an early stop leaves epochs undone."""
        update_progress_artifact(self.artifact, progress=100.0)  # type: ignore[arg-type]

    def _epoch(self, seed: int, record: EpochRecord) -> None:
        self.log.info(progress.epoch_line(seed, record, self.training.epochs))
        place = self.training.seeds.index(seed) + record.epoch / self.training.epochs
        update_progress_artifact(self.artifact, progress=100.0 * place / len(self.training.seeds))  # type: ignore[arg-type]
