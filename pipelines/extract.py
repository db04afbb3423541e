"""Flow `extract-features`: a raw corpus, encoders on Ray, a feature set.

Order, retries and artifacts only: what a step does is in ``ada2i``.
"""

import os
from typing import Any

from prefect import flow, get_run_logger, runtime, task
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow

from ada2i import storage
from ada2i.extraction.progress import line
from ada2i.extraction.publish import CARD
from ada2i.extraction.request import DEMO_MEDIA, JOB, RESULT, Result, Wish, is_done, prepare
from ada2i.jobs import client
from ada2i.jobs.cluster import cluster
from ada2i.jobs.events import Event
from ada2i.modalities import Modality
from ada2i.training.request import default_root, with_named
from pipelines.retries import RETRY_SECONDS, retry_if_transient


def stop_job(flow: Flow[Any, Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001
    """Stop the Ray job when its flow is cancelled or crashes; Prefect calls it with these names."""
    address = os.environ.get("RAY_API_SERVER_ADDRESS")
    if address:  # a private cluster ends with its flow
        client.stop(address, extraction_id(str(flow_run.id)))


@flow(name="extract-features", on_cancellation=[stop_job], on_crashed=[stop_job])
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
    wish = Wish(
        kind=corpus,
        location=location,
        encoders=encoders,
        overrides=with_named(overrides, {"workers": workers}),
    )
    return extracted(wish, storage.normalise(root or default_root()), str(runtime.flow_run.id))


def extracted(wish: Wish, root: str, flow_run: str) -> str:
    """Return the URI of the features of a raw corpus: the steps of this flow, for other flows too."""
    extraction = prepare_extraction(wish, root, extraction_id(flow_run))
    return extract(extraction)


def extraction_id(flow_run: str) -> str:
    """Return the id of a flow run's extraction, which differs from that of its training."""
    return f"{flow_run}-extract"


@task(name="corpus", retries=2, retry_delay_seconds=RETRY_SECONDS, retry_condition_fn=retry_if_transient)
def prepare_extraction(wish: Wish, root: str, run_id: str) -> str:
    """Check corpus and config, and return the extraction's URI."""
    return prepare(wish, root=root, run_id=run_id)


@task(retries=2, retry_delay_seconds=RETRY_SECONDS, retry_condition_fn=retry_if_transient)
def extract(extraction: str) -> str:
    """Extract as a Ray job; a retry attaches to the live job, or goes on from what was written."""
    follower = Follower()
    if not is_done(extraction):
        with cluster() as ray:
            client.run(client.Job(JOB, extraction), address=ray.address, on_event=follower)
    follower.done()
    result = Result.load(storage.join(extraction, RESULT))
    card = storage.get(storage.join(result.features, CARD)).decode()
    create_markdown_artifact(key="ada2i-dataset-card", markdown=card.split("---\n", 2)[2], description=result.features)
    get_run_logger().info("Features: %s", result.features)
    return result.features


class Follower:
    """Carries a job's events into the flow's log and a progress artifact; other lines at debug level."""

    def __init__(self) -> None:
        self.log = get_run_logger()
        self.artifact = create_progress_artifact(progress=0.0, key="ada2i-extraction", description="Vectors made")
        self.left: dict[str, int] = {}
        self.total = 0

    def __call__(self, event: Event | str) -> None:
        """Take one event."""
        if isinstance(event, str):
            self.log.debug(event)
            return
        if event["kind"] in ("started", "planned", "progress"):
            self.log.info(line(event))
        if event["kind"] == "planned":
            self.left = {modality: work["encoded"] for modality, work in event["work"].items()}
            self.total = sum(self.left.values())
        elif event["kind"] == "progress":
            self.left[event["modality"]] = event["total"] - event["done"]
            self._update(100.0 * (1 - sum(self.left.values()) / max(self.total, 1)))

    def done(self) -> None:
        """Take the end."""
        self._update(100.0)

    def _update(self, progress: float) -> None:
        update_progress_artifact(self.artifact, progress=progress)  # type: ignore[arg-type]
