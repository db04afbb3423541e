"""Flow `predict-emotions`: a registered version and a source, predicted on Ray, as Parquet.

Order, retries and artifacts only: what a step does is in ``ada2i``. Steps exchange URIs, so no row ever enters a result
store.
"""

from prefect import flow, get_run_logger, runtime, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from ada2i import storage
from ada2i.extraction import request as extraction
from ada2i.jobs.events import Event
from ada2i.prediction.progress import line
from ada2i.prediction.records import WHOLE, is_done, result
from ada2i.prediction.request import JOB, PredictSpec, prepare, raw_corpus
from ada2i.reports.report import Row, markdown_table
from ada2i.training.request import default_root
from pipelines import progress
from pipelines.alerts import alert
from pipelines.extract import extracted
from pipelines.jobs import stop_jobs
from pipelines.retries import retried


@flow(name="predict-emotions", on_cancellation=[stop_jobs], on_crashed=[stop_jobs, alert], on_failure=[alert])
def predict_emotions(  # noqa: PLR0917
    version: str,
    source: str,
    split: str = WHOLE,
    out: str | None = None,
    workers: int | None = None,
    root: str | None = None,
) -> str:
    """Predict every utterance of a source with a registered version.

    Args:
        version: MODEL@ALIAS, MODEL@NUMBER, MODEL for its newest, or the folder of a pulled copy.
        source: The URI of a feature set, or of a table, which needs no labels; `demo` (synthetic); or a raw corpus,
            whose features are extracted by the version's encoders: `demo-media` (synthetic), or corpus:KIND:LOCATION.
        split: Only this split; by default all.
        out: Folder for the Parquet files; by default one under the root.
        workers: Worker processes; by default the config's.
        root: Where everything is kept; by default ADA2I_ROOT.

    Returns:
        URI of the folder with ``part-*.parquet`` and ``manifest.json``.
    """
    root = storage.normalise(root or default_root())
    flow_run = str(runtime.flow_run.id)
    spec = PredictSpec(version=version, source=source, split=split, out=out, workers=workers)
    if raw := look_for_media(spec, root):
        spec = spec.model_copy(update={"source": extracted(raw, root, flow_run), "named": source})
    prediction = prepare_prediction(spec, root, flow_run)
    predict(prediction)
    return publish(prediction)


@retried("encoders")
def look_for_media(spec: PredictSpec, root: str) -> extraction.ExtractSpec | None:
    """Return what must be extracted first, where the source is a raw corpus."""
    return raw_corpus(spec, root=root)


@retried("source")
def prepare_prediction(spec: PredictSpec, root: str, run_id: str) -> str:
    """Check version and source, and return the prediction's URI."""
    return prepare(spec, root=root, run_id=run_id)


@retried()
def predict(prediction: str) -> None:
    """Predict as a Ray job; a retry attaches to the live job, or goes on with the shards that are left."""
    if not is_done(prediction):
        Follower().run(JOB, prediction)


@task(name="artifacts")
def publish(prediction: str) -> str:
    """Show classes, scores where there are labels, and where the files lie; return that place."""
    place, manifest = result(prediction)
    title = f"{manifest.model}@{manifest.version} on {manifest.source}" + " (SYNTHETIC)" * manifest.synthetic
    counts: list[Row] = [{"class": name, "utterances": number} for name, number in manifest.predicted.items()]
    create_table_artifact(key="ada2i-predicted", table=counts, description=f"Predicted classes, {title}")
    if manifest.scores:
        scores: list[Row] = [
            {"split": found.split, "wF1": f"{found.weighted_f1:.4f}", "macro F1": f"{found.macro_f1:.4f}"}
            for found in manifest.scores
        ]
        create_markdown_artifact(key="ada2i-prediction-scores", markdown=markdown_table(scores), description=title)
    create_link_artifact(key="ada2i-predictions", link=place, link_text=f"Predictions of {title}")
    get_run_logger().info("Predictions: %s", place)
    return place


class Follower(progress.Follower):
    """Follows a prediction."""

    def __init__(self) -> None:
        super().__init__(key="ada2i-prediction", description="Utterances predicted")

    def take(self, event: Event) -> None:
        """Show what is done."""
        if event["kind"] in ("started", "planned", "progress"):
            self.log.info(line(event))
        if event["kind"] == "progress":
            self.progress(100.0 * event["done"] / max(event["total"], 1))
