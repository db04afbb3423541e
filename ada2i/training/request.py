"""From a spec to a run that can start: all checks are made here, before any work."""

import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from pydantic import Field

from ada2i import presets, storage
from ada2i.audit.audit import FITTED, check_codes
from ada2i.audit.gate import gate
from ada2i.config import TrainConfig
from ada2i.data.manifest import FeatureSet, require_targets
from ada2i.display import count
from ada2i.errors import ConfigError, DataError
from ada2i.evaluation.regression import check_labels
from ada2i.importers.resolve import resolve_features
from ada2i.jobs import code
from ada2i.jobs.client import Job
from ada2i.jobs.resources import capacity, check_resources, machine
from ada2i.modalities import MODALITIES, Modality
from ada2i.records import GateRecord, Record, RunRequest
from ada2i.store import Store
from ada2i.training.launch import JOB


class TrainSpec(Record):
    """The caller's input, before features and config are resolved."""

    features: str  # `demo`, a feature set, or a table to import
    preset: str = "corrected"
    settings: str | None = None  # None: those published for the dataset
    modalities: str | None = None  # letters; None: all that the features hold
    encoders: dict[Modality, str | None] = Field(default_factory=dict)  # of a raw corpus; None: the default
    overrides: dict[str, Any] = Field(default_factory=dict)
    allow: tuple[str, ...] = ()  # codes of audit findings to ignore
    local: bool = False  # train in the calling process, without Ray
    dataset: str | None = None  # name of the features' dataset; None: their own
    teachers: tuple[str, ...] = ()  # references of registered versions


def new_run_id() -> str:
    """Return a run id that sorts by time."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def prepare(spec: TrainSpec, *, root: str, run_id: str) -> Job:
    """Check everything, import the features if needed, write the run's request, and return the run's job.

    A repeated call with the same run id and spec is harmless: it resumes the run.

    Raises:
        ConfigError: A preset, settings name or field is wrong, or the run was started with other values.
        DataError: The features are invalid, or their audit has a finding that is not allowed.
        AccessError: The storage may not be written, or S3 credentials are missing or refused.
        ResourceError: The cluster has fewer CPUs or GPUs than the workers need.
        UnreachableError: The S3 endpoint or the cluster does not answer.
    """
    run = Store.open(root).run(run_id)
    request = planned(spec, root=root, run_id=run_id)
    if spec.teachers:
        from ada2i.training.distillation import teach

        request = request.model_copy(update={"teaching": teach(spec.teachers, request, run, root=root)})
    data = request.stored()
    if not storage.put_if_absent(run.request_uri, data):
        data = _resume(run.request_uri, request)
    return Job(JOB, run.uri, storage.digest(data))


def planned(spec: TrainSpec, *, root: str, run_id: str) -> RunRequest:
    """Check everything, import the features if needed, and return the run's unwritten request; see ``prepare``."""
    check(spec)
    root = storage.normalise(root)
    storage.check_writable(root)
    features = resolve_features(spec.features, root, needs=requested_modalities(spec), dataset=spec.dataset)
    held = tuple(modality for modality in MODALITIES if modality in features.manifest.modalities)
    settings = spec.settings or presets.settings_for(features.manifest.dataset)
    config_of = partial(config_for, features, preset=spec.preset, settings=settings, overrides=_overrides(spec))
    config = config_of(modalities=requested_modalities(spec) or held)
    audit = gate(
        features,
        modalities=config.model.modalities,
        allow=spec.allow,
        leave_out_fitted=config.model.train_fitted == "leave-out",
    )
    if audit.left_out:
        config = config_of(modalities=_kept(config, audit))
    check_teachers(config, spec.teachers)
    info = features.info()
    own_code = code.digests(config.own_code)
    if own_code:
        from ada2i.training.methods import check_methods

        with code.named(own_code):
            check_methods(config, info)
    return RunRequest(run_id=run_id, config=config, features=info, audit=audit, own_code=own_code)


def config_for(
    features: FeatureSet,
    *,
    preset: str,
    settings: str,
    overrides: Mapping[str, Any],
    modalities: Sequence[Modality],
) -> TrainConfig:
    """Return the config that trains some modalities of features; ``overrides`` come last.

    Raises:
        ConfigError: A preset, settings name or field is unknown, or a value is bad; the message lists all mistakes.
        DataError: Regression is requested, and the features have no targets, or classes other than those of a sign.
    """
    train, widths = features.manifest.splits["train"], features.manifest.widths
    sizes = presets.sized(
        preset,
        settings,
        dialogues=train.dialogues,
        utterances=train.utterances,
        width=max(widths.get(m, 0) for m in modalities),
    )
    chosen = {**overrides, "model.modalities": tuple(modalities)}
    config = presets.resolve(preset=preset, settings=settings, overrides=chosen, sizes=sizes)
    if config.regression:
        require_targets(features, "train", "dev", "test")
        check_labels(features.manifest.labels, features.uri)
    return config


def check_teachers(config: TrainConfig, teachers: Sequence[str], *, whole: bool = True) -> None:
    """Check that a config that learns from teachers has them, and that teachers are learned from.

    Args:
        config: The config.
        teachers: Their references.
        whole: Whether the config's modalities are known, each of which needs a teacher with ``balance.method=umt``.

    Raises:
        ConfigError: Teachers are missing, or nothing is learned from them.
    """
    number, modalities = len(teachers), config.model.modalities
    named = f", {', '.join(modalities)}" if whole else ""
    if config.learns_encodings and (number != len(modalities) if whole else not number):
        raise ConfigError(
            f"`balance.method=umt` needs a teacher for each modality{named}, but has {count(number, 'teacher')}. Train "
            "a version on each modality alone, and name them: `ada2i distil TEACHERS... --set balance.method=umt`.",
            field="balance.method",
        )
    learns = config.loss.distillation or config.learns_encodings
    if teachers and not learns:
        raise ConfigError(
            "A run with teachers must learn from them, but `loss.distillation` is 0, and `balance.method=umt` is not "
            "in effect. Set `loss.distillation` or that method's `balance.weight` above 0, or omit teachers.",
            field="loss.distillation",
        )
    if learns and not teachers:
        raise ConfigError(
            "`loss.distillation` needs teachers, but there are none. Name them with `ada2i distil TEACHERS...`, or "
            "omit the field.",
            field="loss.distillation",
        )


def check(spec: TrainSpec) -> TrainConfig:
    """Check what is possible without features; return the config as far as it is known without them.

    Raises:
        ConfigError: A preset, settings name, field or code is wrong.
        ResourceError: The cluster has fewer CPUs or GPUs than the workers need.
        UnreachableError: The cluster does not answer.
    """
    if "model.modalities" in spec.overrides:
        raise ConfigError("`model.modalities` is set by `--modalities`. Write for example `--modalities ta`.")
    check_codes(spec.allow)
    requested = requested_modalities(spec)
    overrides = _overrides(spec) | ({"model.modalities": requested} if requested else {})
    tried = presets.resolve(preset=spec.preset, settings=spec.settings or "default", overrides=overrides)
    check_teachers(tried, spec.teachers, whole=bool(requested))
    check_resources(tried.resources, machine() if spec.local else capacity())
    return tried


def _overrides(spec: TrainSpec) -> dict[str, Any]:
    """Return the caller's overrides; a local run has one worker, and teachers have a weight unless it is given."""
    workers = spec.overrides.get("resources.workers", 1)
    if spec.local and workers != 1:
        raise ConfigError(
            f"A local run trains in one process, so `resources.workers` must be 1, but is {workers}. Omit the workers, "
            "or train on Ray.",
            field="resources.workers",
        )
    umt = spec.overrides.get("balance.method") == "umt"  # its teachers teach the encoders
    defaults = {"loss.distillation": 1.0} if spec.teachers and not umt else {}
    return {**defaults, **spec.overrides, **({"resources.workers": 1} if spec.local else {})}


def requested_modalities(spec: TrainSpec) -> tuple[Modality, ...]:
    """Return the modalities that the caller named; an empty tuple: all that the features hold."""
    return () if spec.modalities is None else presets.parse_modalities(spec.modalities)


def _kept(config: TrainConfig, audit: GateRecord) -> tuple[Modality, ...]:
    """Return the modalities that are not left out; refuse if none remains."""
    kept = tuple(m for m in config.model.modalities if m not in audit.left_out)
    if not kept:
        raise DataError(
            "The features must hold a modality that was not fitted to the labels of train, but "
            f"{', '.join(audit.left_out)} were. Use other features; or, if you know the reason, accept them "
            f"with `--allow {FITTED}`.",
            codes=(FITTED,),
        )
    return kept


def with_named(overrides: Mapping[str, Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """Return overrides together with the fields that have their own option; None: the option was not given.

    Raises:
        ConfigError: A field is given by both.
    """
    given = {field: value for field, value in named.items() if value is not None}
    if twice := [field for field in given if field in overrides]:
        raise ConfigError(
            f"`{twice[0]}` must be given once, but is given by its own option and as an override. Leave one out.",
            field=twice[0],
        )
    return {**overrides, **given}


def _resume(place: str, now: RunRequest) -> bytes:
    """Refuse a request that differs from the stored one in more than resources; store it, and return its bytes."""
    first = RunRequest.load(place)
    resources = {"resources": now.config.resources}  # a run may continue with other workers
    same = all(getattr(first, name) == getattr(now, name) for name in ("run_id", "features", "own_code", "teaching"))
    if not same or first.config.model_copy(update=resources) != now.config:
        raise ConfigError(
            f"Run {now.run_id} must be resumed with the config and features that it was started with, and with the "
            "same source of classes of your own, but these differ. Repeat the first command, or start a new run."
        )
    data = first.model_copy(update={"config": now.config}).stored()
    storage.put(place, data)
    return data
