"""Flow `extract-features`: turns a raw corpus into a feature set, with encoders on Ray.

The steps are those of ``usecases.extract``.
"""

from typing import Any

from prefect import flow, runtime, task
from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event

from ada2i import storage, usecases
from ada2i.data.manifest import open_features
from ada2i.extraction.publish import CARD
from ada2i.extraction.request import DEMO_MEDIA, ExtractSpec
from ada2i.modalities import Modality
from ada2i.store import Store
from ada2i.training.request import with_named
from pipelines.alerts import alert
from pipelines.hooks import FlowHooks
from pipelines.jobs import stop_jobs

READY = "ada2i.features.ready"


@flow(name="extract-features", on_cancellation=[stop_jobs], on_crashed=[stop_jobs, alert], on_failure=[alert])
def extract_features(  # noqa: PLR0917
    corpus: str = DEMO_MEDIA,
    location: str = "",
    text: str | None = None,
    audio: str | None = None,
    visual: str | None = None,
    dataset: str | None = None,
    workers: int | None = None,
    overrides: dict[str, Any] = {},  # noqa: B006 - Prefect shows the default in its form
    root: str | None = None,
) -> str:
    """Extract features of a raw corpus.

    Args:
        corpus: Which reader: `demo-media` (synthetic), a published dataset, `folder`, or package.module:function.
        location: Path or URI of the corpus; empty for `demo-media`.
        text: Text encoder, several separated by commas, or `none`; by default the config's.
        audio: Audio encoder, or `none`.
        visual: Visual encoder, or `none`.
        dataset: Name of the dataset; by default the corpus's.
        workers: Worker processes; by default the config's.
        overrides: Config fields by dotted name, such as `encoders.visual.size`.
        root: Where everything is stored; by default ADA2I_ROOT.

    Returns:
        URI of the feature set.
    """
    encoders: dict[Modality, str | None] = {"text": text, "audio": audio, "visual": visual}
    spec = ExtractSpec(
        kind=corpus,
        location=location,
        encoders=encoders,
        overrides=with_named(overrides, {"workers": workers}),
        dataset=dataset,
    )
    run_id = usecases.extraction_id(str(runtime.flow_run.id))
    features = usecases.extract(spec, Store.open(root), run_id=run_id, hooks=FlowHooks()).features
    publish(features)
    return features


@task(name="artifacts")
def publish(features: str) -> None:
    """Show the dataset card, and emit the event that can trigger deployments."""
    _, _, card = storage.get(storage.join(features, CARD)).decode().split("---\n", 2)
    create_markdown_artifact(key="ada2i-dataset-card", markdown=card, description=features)
    manifest = open_features(features).manifest
    resource = {
        "prefect.resource.id": f"ada2i.dataset.{manifest.dataset}",
        "prefect.resource.name": manifest.dataset,
        "ada2i.features": features,
        "ada2i.fingerprint": manifest.fingerprint,
    }
    emit_event(event=READY, resource=resource)
