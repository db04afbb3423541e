"""Flow `train-ada2i`: features, training on Ray, evaluation, registration, the gate, and one page about the outcome.

The steps are those of ``usecases.train``. They exchange URIs, so no tensor enters Prefect's result storage.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from prefect import flow, runtime, task
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State

from ada2i import usecases
from ada2i.modalities import Modality
from ada2i.records import RunResult
from ada2i.reports.report import markdown_summary, scores_table
from ada2i.store import Store
from ada2i.tracking.export import Kind, export
from ada2i.training.request import TrainSpec, with_named
from ada2i.usecases import Gate, Outcome
from pipelines.defaults import features_of
from pipelines.hooks import FlowHooks
from pipelines.jobs import stop_jobs
from pipelines.summary import conclude, failed


@flow(name="train-ada2i", on_cancellation=[stop_jobs], on_crashed=[stop_jobs, failed], on_failure=[failed])
def train_ada2i(  # noqa: PLR0917
    features: str | None = None,
    preset: str = "corrected",
    settings: str | None = None,
    modalities: str | None = None,
    encoders: dict[Modality, str] = {},  # noqa: B006 - Prefect shows the default in its form
    workers: int | None = None,
    seeds: list[int] | None = None,
    overrides: dict[str, Any] = {},  # noqa: B006
    model: str | None = None,
    root: str | None = None,
    allow: list[str] = [],  # noqa: B006
    teachers: list[str] = [],  # noqa: B006
    promote: bool = False,
    rules: dict[str, Any] = {},  # noqa: B006
    force: bool = False,
    code: list[str] = [],  # noqa: B006
    track: dict[Kind, str] = {},  # noqa: B006
) -> State[str]:
    """Train Ada2I, register the result unless an equal version exists, and return the URI of that version.

    Args:
        features: A set, table or corpus:KIND:LOCATION; by default ADA2I_FEATURES, else ada2i_features, else `demo`.
        preset: Variant of Ada2I.
        settings: Dataset whose published settings to use; by default that of the features.
        modalities: Letters of t(ext), a(udio), v(isual), in order; by default all that the features hold.
        encoders: Encoders of a raw corpus by modality; by default those that `ada2i encoders` marks.
        workers: Training workers; by default the config's.
        seeds: One model is trained for each, and the best on dev is registered; by default the config's.
        overrides: Config fields by dotted name.
        model: Name in the registry; by default ada2i- and the dataset.
        root: Where everything is stored; by default ADA2I_ROOT.
        allow: Codes of audit findings to ignore.
        teachers: Registered versions, such as `mine@1`, which teach the run (distillation).
        promote: Whether the gate judges the version for champion.
        rules: Fields of the gate's rules that differ from the defaults.
        force: Train even if a version with these features and this config exists.
        code: package.module:Class that the champion may name for its model; their code runs when the gate judges.
        track: Trackers that get the model's versions, such as {"mlflow": "sqlite:////srv/mlflow.db", "wandb": "/srv"}.
    """
    outcome = usecases.train(
        TrainSpec(
            features=features_of(features),
            preset=preset,
            settings=settings,
            modalities=modalities,
            encoders={**encoders},
            overrides=with_named(overrides, {"resources.workers": workers, "training.seeds": seeds}),
            allow=tuple(allow),
            teachers=tuple(teachers),
        ),
        store := Store.open(root),
        run_id=(flow_run := str(runtime.flow_run.id)),
        hooks=FlowHooks(),
        model=model,
        force=force,
        gate=Gate(rules, by=f"{runtime.flow_run.flow_name} {flow_run}", code=tuple(code)) if promote else None,
        flow_run_id=flow_run,
    )
    return conclude(store, outcome, more=_shown(store, outcome, track))


def _shown(store: Store, outcome: Outcome, track: Mapping[Kind, str]) -> str:
    """Export the versions of the model to trackers, and return the scores of a training as markdown."""
    for kind, to in track.items():
        FlowHooks().step(f"track {kind}", partial(export, store.root, kind, to, [outcome.version.model]))
    return publish(outcome.result, outcome.version.name) if outcome.result else ""


@task(name="artifacts")
def publish(result: RunResult, version: str) -> str:
    """Show the scores as a table in Prefect, and return them as markdown."""
    create_table_artifact(key="ada2i-scores", table=scores_table(result), description=f"Test scores of {version}")
    return markdown_summary(result)
