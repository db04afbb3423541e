"""Flow `train-ada2i`: features, training on Ray, evaluation, registration, the gate, and one page that says it all.

Order, retries and artifacts only: what a step does is in ``ada2i``. Steps exchange URIs, so no tensor ever enters a
result store.
"""

from typing import Any

from prefect import flow, get_run_logger, runtime, task
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State

from ada2i import storage
from ada2i.extraction import request as extraction
from ada2i.extraction.config import NONE
from ada2i.jobs.cluster import cluster
from ada2i.jobs.events import Event
from ada2i.modalities import MODALITIES
from ada2i.promotion.gate import is_settled, last_verdict, resolve_rules
from ada2i.records import EpochRecord, RunRequest, RunResult
from ada2i.registry.verdicts import Verdict
from ada2i.registry.versions import Version, check_model_name, register
from ada2i.reports.report import markdown_summary, scores_table
from ada2i.store import RunFolder
from ada2i.training import launch, progress
from ada2i.training.dedup import repeats
from ada2i.training.evaluate import evaluate_run
from ada2i.training.request import TrainSpec, check, default_root, prepare, with_named
from pipelines import progress as job_progress
from pipelines.extract import extracted
from pipelines.jobs import stop_jobs
from pipelines.promote import gate, look_for_alias
from pipelines.retries import retried
from pipelines.summary import conclude, failed


@flow(name="train-ada2i", on_cancellation=[stop_jobs], on_crashed=[stop_jobs, failed], on_failure=[failed])
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
    promote: bool = False,
    rules: dict[str, Any] = {},  # noqa: B006
    force: bool = False,
) -> State[str]:
    """Train Ada2I and register the result, unless a version has these features and this config already.

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
        promote: Whether the gate makes the version champion, or refuses it.
        rules: Fields of the gate's rules that are other than usual.
        force: Train even where a version has these features and this config.

    Returns:
        URI of the registered version; where nothing has changed, of the newest with the same features and config.
    """
    resolve_rules(rules)
    if model is not None:
        check_model_name(model)
    root = storage.normalise(root or default_root())
    chosen = with_named(overrides, {"resources.workers": workers, "training.seeds": seeds})
    flow_run = str(runtime.flow_run.id)
    spec = TrainSpec(
        features=features,
        preset=preset,
        settings=settings,
        modalities=modalities,
        overrides=chosen,
        allow=tuple(allow),
    )
    run = prepare_run(with_features(spec, root, flow_run), root, flow_run)
    if not force and (known := look_for_repetition(run, root, model)):
        why = f"Features and config are those of {known.name}; `force` trains all the same."
        verdict, asked = gate_once(root, known, rules) if promote else (None, False)
        held = look_for_alias(root, known) if asked else None
        return conclude(root, known, why=why, verdict=verdict if asked else None, held=held, trained=False)
    train(run)
    evaluate(run)
    version = register_version(run, root, model)
    verdict, _ = gate_once(root, version, rules) if promote else (None, False)
    held = look_for_alias(root, version) if promote else None
    why = f"{version.name} was trained; the gate was not asked."
    return conclude(root, version, why=why, verdict=verdict, held=held, trained=True, more=publish(run, version))


def with_features(spec: TrainSpec, root: str, flow_run: str) -> TrainSpec:
    """Return a spec for features that are there: those of a raw corpus are extracted first."""
    if not (raw := extraction.parse(spec.features)):
        return spec
    wanted = check(spec).model.modalities  # mistakes show before hours of extraction
    encoders = {m: NONE for m in MODALITIES if m not in wanted}
    asked = extraction.ExtractSpec(kind=raw[0], location=raw[1], encoders=encoders)
    return spec.model_copy(update={"features": extracted(asked, root, flow_run)})


@retried("features")
def prepare_run(spec: TrainSpec, root: str, run_id: str) -> str:
    """Check the request, make sure that the features exist, and return the run's URI."""
    uri = prepare(spec, root=root, run_id=run_id)
    request = RunRequest.load(storage.join(uri, "request.json"))
    get_run_logger().info("Features: %s", request.features.uri)
    return uri


@retried("unchanged")
def look_for_repetition(run: str, root: str, model: str | None) -> Version | None:
    """Return the newest version that the run would only repeat."""
    return repeats(run, root=root, model=model)


@retried("gate")
def gate_once(root: str, version: Version, rules: dict[str, Any]) -> tuple[Verdict | None, bool]:
    """Send a version through the gate unless it is settled: a run that is tried again undoes no rollback.

    Returns:
        The newest verdict on the version, and whether the gate was asked only now.
    """
    if is_settled(root, version):
        return last_verdict(root, version), False
    return gate.fn(root, version, rules), True


@retried()
def train(run: str) -> None:
    """Train as a Ray job; a retry attaches to the live job, or resumes from the newest checkpoint."""
    follower = Follower(run)
    with follower.following(), cluster() as ray:
        follower.log.info("Ray's dashboard: %s/#/jobs", ray.address)
        launch.launch(RunFolder(run), address=ray.address, on_event=follower)


@retried()
def evaluate(run: str) -> None:
    """Evaluate the selected checkpoints on test, once."""
    result = evaluate_run(run)
    weighted = result.test_summary["weighted_f1"]
    get_run_logger().info("Test weighted F1: %.4f over %d seeds", weighted.mean, len(weighted.values))


@retried("register")
def register_version(run: str, root: str, model: str | None) -> Version:
    """Register the run's best seed; a retry finds the version that it already made."""
    version = register(run, root=root, model=model, flow_run_id=str(runtime.flow_run.id))
    get_run_logger().info("Registered %s@%d", version.model, version.number)
    return version


@task(name="artifacts")
def publish(run: str, version: Version) -> str:
    """Show the scores as a table in Prefect, and return them as markdown."""
    result = RunResult.load(storage.join(run, "result.json"))
    create_table_artifact(key="ada2i-scores", table=scores_table(result), description=f"Test scores of {version.name}")
    return markdown_summary(result)


class Follower(job_progress.Follower):
    """Follows a training."""

    def __init__(self, run: str) -> None:
        self.training = RunRequest.load(storage.join(run, "request.json")).config.training
        super().__init__(key="ada2i-training", description="Epochs done")

    def take(self, event: Event) -> None:
        """Show the first step and each epoch."""
        if event["kind"] == "epoch":
            self._epoch(event["seed"], EpochRecord.model_validate(event["record"]))
        elif event["kind"] == "first_step":
            self.log.info("First optimizer step %.1f s after the driver's start", event["seconds"])

    def _epoch(self, seed: int, record: EpochRecord) -> None:
        self.log.info(progress.epoch_line(seed, record, self.training.epochs))
        place = self.training.seeds.index(seed) + record.epoch / self.training.epochs
        self.progress(100.0 * place / len(self.training.seeds))
