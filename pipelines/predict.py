"""Flow `predict-emotions`: predicts a source with a registered version on Ray and writes Parquet.

The steps are those of ``usecases.predict``. They exchange URIs, so no row enters Prefect's result storage.
"""

from prefect import flow, get_run_logger, runtime, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from ada2i import usecases
from ada2i.drift import Window
from ada2i.prediction.records import WHOLE, PredictionManifest
from ada2i.prediction.request import PredictSpec
from ada2i.reports.report import Row, markdown_table
from ada2i.store import Store
from pipelines.alerts import alert
from pipelines.drift import report_drift
from pipelines.hooks import FlowHooks
from pipelines.jobs import stop_jobs


@flow(name="predict-emotions", on_cancellation=[stop_jobs], on_crashed=[stop_jobs, alert], on_failure=[alert])
def predict_emotions(  # noqa: PLR0917
    version: str,
    source: str,
    split: str = WHOLE,
    out: str | None = None,
    workers: int | None = None,
    root: str | None = None,
    allow_encoders: list[str] = [],  # noqa: B006 - Prefect shows the default in its form
    code: list[str] = [],  # noqa: B006
    min_confidence: float = 0.0,
    drift: bool = True,
) -> str:
    """Predict every utterance of a source with a registered version.

    Args:
        version: MODEL@ALIAS, MODEL@NUMBER, MODEL for its newest version, or the folder of a pulled copy.
        source: The URI of a feature set, or of a table, which needs no labels; `demo` (synthetic); or a raw corpus,
            whose features are extracted by the version's encoders: `demo-media` (synthetic), or corpus:KIND:LOCATION.
        split: Only this split; by default all.
        out: Folder for the Parquet files; by default one under the root.
        workers: Worker processes; by default the config's.
        root: Where everything is stored; by default ADA2I_ROOT.
        allow_encoders: package.module:Class that the version may name for a raw corpus; their code runs.
        code: package.module:Class that the version may name for its model; their code runs.
        min_confidence: An utterance whose largest probability is below it gets no label.
        drift: Whether to compare the source with the training set, and to emit `ada2i.drift.detected` if it differs.

    Returns:
        URI of the folder with ``part-*.parquet`` and ``manifest.json``.
    """
    flow_run = str(runtime.flow_run.id)
    spec = PredictSpec(
        version=version,
        source=source,
        split=split,
        out=out,
        workers=workers,
        allow_encoders=tuple(allow_encoders),
        code=tuple(code),
        min_confidence=min_confidence,
    )
    place, manifest = usecases.predict(
        spec,
        Store.open(root),
        hooks=FlowHooks(),
        extraction_run=usecases.extraction_id(flow_run),
        run_id=flow_run,
    )
    if drift and manifest.sums and "/" not in version:  # few dialogues have no sums
        report_drift(Window.of_prediction(manifest), Store.open(root), tuple(code))
    return publish(place, manifest)


@task(name="artifacts")
def publish(place: str, manifest: PredictionManifest) -> str:
    """Show classes, scores if there are labels, and the folder of the files; return that folder."""
    title = f"{manifest.model}@{manifest.version} on {manifest.source}" + " (SYNTHETIC)" * manifest.synthetic
    counts: list[Row] = [{"class": name, "utterances": number} for name, number in manifest.predicted.items()]
    if manifest.withheld:
        counts.append({"class": "no label", "utterances": manifest.withheld})
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
