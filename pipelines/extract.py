"""Flow `extract-features`: a raw corpus, encoders on Ray, a feature set.

Order, retries and artifacts only: what a step does is in ``ada2i``.
"""

from typing import Any

from prefect import flow, get_run_logger, runtime
from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event

from ada2i import storage
from ada2i.data.manifest import open_features
from ada2i.extraction.progress import line
from ada2i.extraction.publish import CARD
from ada2i.extraction.request import (
    DEMO_MEDIA,
    JOB,
    RESULT,
    ExtractionRequest,
    ExtractionResult,
    ExtractSpec,
    is_done,
    prepare,
)
from ada2i.jobs.events import Event
from ada2i.modalities import Modality
from ada2i.training.request import default_root, with_named
from pipelines import progress
from pipelines.alerts import alert
from pipelines.jobs import extraction_id, stop_jobs
from pipelines.retries import retried

READY = "ada2i.features.ready"


@flow(name="extract-features", on_cancellation=[stop_jobs], on_crashed=[stop_jobs, alert], on_failure=[alert])
def extract_features(  # noqa: PLR0917
    corpus: str = DEMO_MEDIA,
    location: str = "",
    text: str | None = None,
    audio: str | None = None,
    visual: str | None = None,
    workers: int | None = None,
    overrides: dict[str, Any] = {},  # noqa: B006 - Prefect shows the default in its form
    root: str | None = None,
) -> str:
    """Extract features of a raw corpus.

    Args:
        corpus: Which reader: `demo-media` (synthetic), a published dataset, `folder`, or package.module:function.
        location: Where the corpus lies; nothing for `demo-media`.
        text: Text encoder, or `none`; by default the config's.
        audio: Audio encoder, or `none`.
        visual: Visual encoder, or `none`.
        workers: Worker processes; by default the config's.
        overrides: Config fields by dotted name, such as `encoders.visual.size`.
        root: Where everything is kept; by default ADA2I_ROOT.

    Returns:
        URI of the feature set.
    """
    encoders: dict[Modality, str | None] = {"text": text, "audio": audio, "visual": visual}
    spec = ExtractSpec(
        kind=corpus,
        location=location,
        encoders=encoders,
        overrides=with_named(overrides, {"workers": workers}),
    )
    features = extracted(spec, storage.normalise(root or default_root()), str(runtime.flow_run.id))
    announce(features)
    return features


def extracted(spec: ExtractSpec, root: str, flow_run: str) -> str:
    """Return the URI of the features of a raw corpus: the steps of this flow, for other flows too."""
    extraction = prepare_extraction(spec, root, extraction_id(flow_run))
    return extract(extraction)


@retried()
def announce(features: str) -> None:
    """Say that features are there, which deployments may wait for."""
    manifest = open_features(features).manifest
    resource = {
        "prefect.resource.id": f"ada2i.dataset.{manifest.dataset}",
        "prefect.resource.name": manifest.dataset,
        "ada2i.features": features,
        "ada2i.fingerprint": manifest.fingerprint,
    }
    emit_event(event=READY, resource=resource)


@retried("corpus")
def prepare_extraction(spec: ExtractSpec, root: str, run_id: str) -> str:
    """Check corpus and config, and return the extraction's URI."""
    return prepare(spec, root=root, run_id=run_id)


@retried()
def extract(extraction: str) -> str:
    """Extract as a Ray job; a retry attaches to the live job, or goes on from what was written."""
    if not is_done(extraction):
        Follower().run(JOB, extraction)
    result = ExtractionResult.load(storage.join(extraction, RESULT))
    if ExtractionRequest.load(storage.join(extraction, "request.json")).labelled:  # what is to be predicted has no card
        card = storage.get(storage.join(result.features, CARD)).decode()
        body = card.split("---\n", 2)[2]
        create_markdown_artifact(key="ada2i-dataset-card", markdown=body, description=result.features)
    get_run_logger().info("Features: %s", result.features)
    return result.features


class Follower(progress.Follower):
    """Follows an extraction."""

    def __init__(self) -> None:
        super().__init__(key="ada2i-extraction", description="Vectors made")
        self.left: dict[str, int] = {}
        self.total = 0

    def take(self, event: Event) -> None:
        """Show what is to be done and what is done."""
        if event["kind"] in ("started", "planned", "progress"):
            self.log.info(line(event))
        if event["kind"] == "planned":
            self.left = {modality: work["encoded"] for modality, work in event["work"].items()}
            self.total = sum(self.left.values())
        elif event["kind"] == "progress":
            self.left[event["modality"]] = event["total"] - event["done"]
            self.progress(100.0 * (1 - sum(self.left.values()) / max(self.total, 1)))
