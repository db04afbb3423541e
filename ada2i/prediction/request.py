"""From a spec to a prediction that can start: all checks are made here, before any work."""

import json
import logging
import os
from collections.abc import Collection
from typing import Any

from pydantic import ValidationError

from ada2i import presets, storage
from ada2i.config import ResourceConfig, TrainConfig
from ada2i.data.manifest import is_feature_set, open_features
from ada2i.errors import ConfigError, DataError, InputError
from ada2i.extraction import request as extraction
from ada2i.extraction.config import NONE, ExtractionConfig
from ada2i.extraction.encoders import registry
from ada2i.importers.demo import write_demo_corpus
from ada2i.importers.resolve import DEMO
from ada2i.inference.versions import check_code, load_config, open_version
from ada2i.jobs import code
from ada2i.jobs.client import Job
from ada2i.jobs.resources import capacity, check_resources, machine
from ada2i.modalities import MODALITIES, Modality
from ada2i.prediction.records import (
    MANIFEST,
    REQUEST,
    SOURCE,
    WHOLE,
    PredictionManifest,
    PredictionRequest,
    is_done,
    part_name,
    sweep,
)
from ada2i.prediction.source import Features, Table
from ada2i.records import Record, get_folder_file
from ada2i.registry.versions import Version
from ada2i.store import Store

log = logging.getLogger(__name__)

JOB = "ada2i.prediction.job:drive"
BATCH = 512  # slots of a forward pass; fixed, so that the same source gives the same bytes

_SMALL_ROWS = 10_000  # predicted in seconds by one process; a private cluster takes longer to start


class PredictSpec(Record):
    """A prediction as the caller describes it, before version and source are resolved."""

    version: str  # MODEL, MODEL@NUMBER, MODEL@ALIAS, or the folder of a pulled copy
    source: str  # `demo`, a feature set, or a table
    split: str = WHOLE
    named: str | None = None  # the source's name in the manifest; by default `source`
    out: str | None = None  # folder for parts and manifest; by default the prediction's own
    workers: int | None = None
    allow_encoders: tuple[str, ...] = ()  # package.module:Class that a version may name for a raw corpus
    local: bool = False  # predict in the calling process, without Ray, also a large source
    code: tuple[str, ...] = ()  # package.module:Class that a version's model may name
    min_confidence: float = 0.0  # an utterance whose largest probability is below it gets no label


def prepare(spec: PredictSpec, *, root: str, run_id: str | None = None) -> Job:
    """Check everything, cut a table into shards, write the prediction's request, and return the prediction's job.

    Args:
        spec: What to predict.
        root: The storage root.
        run_id: The prediction's id; an existing one resumes with its first request. By default it is derived from
            version, source, split and ``out``: a repeated call resumes the same prediction, and if that is complete,
            checks every part.

    Raises:
        ConfigError: A name is wrong, or ``out`` holds something else.
        NotFoundError: There is no such version.
        IntegrityError: An object of the version, or of a complete prediction, is damaged.
        DataError: The source is invalid, or has other features than the version was trained on.
        AccessError: The storage may not be written.
        ResourceError: The cluster has fewer CPUs than workers.
    """
    resources = _resources(spec.workers)
    store = Store.open(root).writable()
    root = store.root
    if run_id is not None and storage.exists(storage.join(store.prediction(run_id), REQUEST)):
        return _resumed(spec, store.prediction(run_id), root)
    home, version = open_version(root, spec.version)
    config = load_config(home, version)
    own_code = _own_code(spec, config, version)
    check_confidence(spec.min_confidence, config, version)
    source = _open(spec, root)
    run_id = run_id or _run_id(home, source.fingerprint, spec)
    uri = store.prediction(run_id)
    out = target(spec, uri)
    if is_done(out):
        check_parts(out, run_id)
        sweep(uri)
        return Job(JOB, uri, "")  # complete: it is not submitted
    storage.check_writable(out)
    check_resources(resources, machine() if spec.local else capacity(), shared=True)
    if out != uri and not storage.exists(storage.join(uri, REQUEST)) and storage.children(out):
        raise ConfigError(
            f"`out` must be an empty folder, or one that does not exist, but {out} holds something. Name another."
        )
    request = PredictionRequest(
        run_id=run_id,
        out=out,
        version_uri=home,
        version=version,
        source=storage.public(spec.named or spec.source),
        split=spec.split,
        modalities=config.model.modalities,
        attends_to_padding=attends_to_padding(config),
        group=config.training.batch_dialogues,
        batch=BATCH,
        resources=resources,
        own_code=own_code,
        min_confidence=spec.min_confidence,
        **_facts(source, version, config.model.modalities, uri),
    )
    data = request.stored()
    storage.put(storage.join(uri, REQUEST), data)
    return Job(JOB, uri, storage.digest(data))


def local_request(spec: PredictSpec, job: Job) -> PredictionRequest | None:
    """Return the request of a prediction that runs in this process, or None if it is a job on Ray.

    This process predicts what the caller wants local, and what is faster here than on a private cluster: at most 10,000
    rows, if no cluster is configured and neither workers nor a GPU were requested.
    """
    if not spec.local and (spec.workers is not None or os.environ.get("RAY_API_SERVER_ADDRESS")):
        return None
    request = PredictionRequest.load(storage.join(job.uri, REQUEST), job.request)
    if spec.local:
        return request
    rows = sum(shard.rows for shard in request.shards)
    return request if rows <= _SMALL_ROWS and request.resources.device != "cuda" else None


def target(spec: PredictSpec, uri: str) -> str:
    """Return the folder for the parts of the prediction with a URI."""
    return storage.normalise(spec.out) if spec.out else uri


def _resumed(spec: PredictSpec, uri: str, root: str) -> Job:
    """Return the job of a prediction that was started before, with its first request: an alias may have moved since.

    Raises:
        ConfigError: The request is not one that this spec can have written.
    """
    place = storage.join(uri, REQUEST)
    data = storage.get(place)
    first = PredictionRequest.opened(data, place)
    model = spec.version.partition("@")[0]
    reference = spec.version if "/" in spec.version else f"{model}@{first.version.number}"
    home, version = open_version(root, reference)
    same = (
        (first.version_uri, first.version) == (home, version)
        and first.own_code == _own_code(spec, load_config(home, version), version)
        and first.run_id == storage.name_of(uri)
        and (first.out, first.split, first.min_confidence) == (target(spec, uri), spec.split, spec.min_confidence)
        and first.source == storage.public(spec.named or spec.source)
        and [shard.uri for shard in first.shards] == _shard_uris(spec, root, uri, len(first.shards))
    )
    if not same:
        raise ConfigError(
            f"{place} must be the request of this prediction, but names another version, source, split, confidence or "
            "`out`. Repeat the first command, or start a new prediction."
        )
    return Job(JOB, uri, storage.digest(data))


def _shard_uris(spec: PredictSpec, root: str, uri: str, number: int) -> list[str]:
    """Return where a prediction reads its source: a feature set's own shards, or those cut from a table."""
    source = _open(spec, root)
    if isinstance(source, Features):
        return [shard.uri for shard in source.shards()]
    return [storage.join(uri, SOURCE, part_name(place)) for place in range(number)]


def check_parts(out: str, run_id: str) -> None:
    """Check every part of a complete prediction.

    Raises:
        IntegrityError: The manifest or a part is damaged.
        ConfigError: The folder holds another prediction.
    """
    manifest = PredictionManifest.load(storage.join(out, MANIFEST))
    if manifest.run_id != run_id:
        raise ConfigError(
            f"`out` must be an empty folder, or one that does not exist, but {out} holds the predictions of "
            f"{manifest.model}@{manifest.version} for {manifest.source}. Name another."
        )
    for name, entry in manifest.files.items():
        get_folder_file(out, name, entry)


def attends_to_padding(config: TrainConfig) -> bool:
    """Return whether a prediction depends on the lengths of other dialogues in its batch (preset `reference`)."""
    encoder = config.model.encoder
    weighted = config.model.afw.average_padding and config.has_afw
    return weighted or (encoder.kind == "transformer" and encoder.attend_to_padding)


def raw_corpus(spec: PredictSpec, *, root: str) -> extraction.ExtractSpec | None:
    """Return the extraction that a raw corpus needs first, with the version's encoders; None for other sources.

    Raises:
        DataError: The version's features were not extracted by this project, so their encoders are unknown.
        ConfigError: The version names an encoder that is not of this package and that the caller did not allow.
        NotFoundError: There is no such version.
    """
    raw = extraction.parse(spec.source)
    if raw is None:
        return None
    home, version = open_version(root, spec.version)
    config = load_config(home, version)
    _own_code(spec, config, version)  # before hours of extraction
    wanted = config.model.modalities
    recipe = encoders_of(version, wanted, spec.allow_encoders)
    encoders = recipe.encoders
    overrides: dict[str, Any] = {f"media.{name}": value for name, value in recipe.media.model_dump().items()}
    for modality in wanted:
        settings = encoders[modality].settings
        overrides |= {f"encoders.{modality}.{name}": value for name, value in settings.items()}
    if spec.workers is not None:
        overrides["workers"] = spec.workers
    named: dict[Modality, str | None] = {m: encoders[m].spec if m in wanted else NONE for m in MODALITIES}
    kind, location = raw
    return extraction.ExtractSpec(
        kind=kind,
        location=location,
        encoders=named,
        overrides=overrides,
        needs=wanted,
        labelled=False,
        local=spec.local,
    )


def encoders_of(version: Version, wanted: Collection[Modality], allowed: Collection[str]) -> ExtractionConfig:
    """Return the encoders and media settings that a version records for its features.

    Args:
        version: The version.
        wanted: The modalities whose encoders are needed.
        allowed: package.module:Class that the caller allows as encoders.

    Raises:
        DataError: They are unknown, since the features were not extracted by this project.
        ConfigError: One is not of this package, and not allowed.
    """
    recipe = _recipe(version)
    if missing := [modality for modality in wanted if modality not in recipe.encoders]:
        raise DataError(
            f"{version.name} must record the encoder of {missing[0]}, but does not. Predict features of it."
        )
    for modality in wanted:
        for encoder in registry.parts(recipe.encoders[modality].spec):
            _check_allowed(encoder, modality, version, allowed)
    return recipe


def _recipe(version: Version) -> ExtractionConfig:
    recipe = version.features.recipe
    if recipe is None:
        raise DataError(
            f"{version.name} must record the encoders of its features to predict a raw "
            "corpus, but was trained on imported features. Make such features of the corpus, and "
            "predict these."
        )
    try:
        return ExtractionConfig.model_validate(recipe.config)
    except ValidationError as problem:
        raise DataError(
            f"{version.name} must record encoders and media settings of this version of ada2i, but: "
            f"{presets.explain(problem)[0]}. Extract the features of the corpus yourself, and predict these."
        ) from problem


def _check_allowed(encoder: str, modality: Modality, version: Version, allowed: Collection[str]) -> None:
    """Refuse an encoder of someone's own unless the caller named it: its code would run."""
    if not registry.is_built_in(encoder) and encoder not in allowed:
        raise ConfigError(
            f"The {modality} encoder of {version.name} must be of this package or {registry.HUGGING_FACE}<id>, but is "
            f"{encoder[:200]!r}, code that a prediction would run. If you know and trust that code, add "
            f"`--allow-encoder {encoder[:200]}`.",
            encoder=encoder,
        )


def _own_code(spec: PredictSpec, config: TrainConfig, version: Version) -> dict[str, str]:
    with code.named(code.digests(spec.code)):
        return check_code(config, version)


def check_confidence(least: float, config: TrainConfig, version: Version) -> None:
    """Refuse a minimum confidence that is no probability, or of a model without probabilities.

    Raises:
        ConfigError: It is one of these.
    """
    if not 0 <= least < 1:
        raise ConfigError(
            f"`min_confidence` must be a probability from 0 to below 1, but is {least}. The report shows what a value "
            "keeps.",
            field="min_confidence",
        )
    if least and config.regression:
        raise ConfigError(
            f"`min_confidence` needs a model that predicts probabilities, but {version.name} predicts a number. Leave "
            "it out.",
            field="min_confidence",
        )


def _resources(workers: int | None) -> ResourceConfig:
    try:
        return ResourceConfig() if workers is None else ResourceConfig(workers=workers)
    except ValidationError as problem:
        raise ConfigError(
            f"`workers` must be 1 or more, but is {workers}. Give a positive number.", field="workers"
        ) from problem


def _open(spec: PredictSpec, root: str) -> Features | Table:
    if spec.source == DEMO:
        return Features(open_features(write_demo_corpus(root)), spec.split)
    if is_feature_set(spec.source):
        return Features(open_features(spec.source), spec.split)
    return Table(spec.source, spec.split)


def _run_id(home: str, fingerprint: str, spec: PredictSpec) -> str:
    manifest = storage.digest(storage.get(storage.join(home, "manifest.json")))
    out = storage.normalise(spec.out) if spec.out else None
    named = [1, manifest, fingerprint, spec.split, out, *([spec.min_confidence] if spec.min_confidence else [])]
    return storage.digest(json.dumps(named).encode())[:32]


def _facts(source: Features | Table, version: Version, modalities: tuple[Modality, ...], uri: str) -> dict[str, Any]:
    """Return the request's description of its source, after checking the source."""
    trained, name = version.features, version.name
    widths = {m: trained.widths[m] for m in modalities}
    if isinstance(source, Features):
        manifest = source.features.manifest
        _check_widths(source, widths, name)
        _check_encoders(source, version, modalities)
        labels, shards = manifest.labels, source.shards()
        return {"fingerprint": source.fingerprint, "synthetic": manifest.synthetic, "labels": labels, "shards": shards}
    _check_encoders(source, version, modalities)
    if "speaker" not in source.keys.names:
        log.warning(
            "The source has no column `speaker`, so each of its dialogues is predicted as if one person spoke. %s may "
            "have learned from who speaks: add the column if you know it.",
            name,
        )
    labels = source.labels(trained.labels)
    try:
        shards = source.stage(storage.join(uri, SOURCE), widths, labels, name)
    except InputError:
        storage.delete_folder(storage.join(uri, SOURCE))
        raise
    return {"fingerprint": source.fingerprint, "synthetic": False, "labels": labels, "shards": shards}


def _check_widths(source: Features, widths: dict[Modality, int], model: str) -> None:
    for modality, width in widths.items():
        found = source.widths.get(modality)
        if found != width:
            has = "no such vectors" if found is None else f"vectors of width {found}"
            raise DataError(
                f"{source.features.uri} must hold {modality} vectors of width {width}, as those that {model} was "
                f"trained on, but holds {has}. Extract them by the same encoder, or predict with another model.",
                uri=source.features.uri,
                field=modality,
            )


def _check_encoders(source: Features | Table, version: Version, modalities: tuple[Modality, ...]) -> None:
    """Refuse vectors that come from other encoders than those of training, even if they are equally wide."""
    if version.features.recipe is None or source.recipe is None:
        return
    trained, found = version.features.recipe.encoders, source.recipe.encoders
    for modality in modalities:
        if modality in found and found[modality] != trained[modality]:
            raise DataError(
                f"The {modality} vectors of the source must be of the encoder that {version.name} "
                f"was trained with, {_encoder(version.features.recipe, modality)}, but are of "
                f"{_encoder(source.recipe, modality)}: weights or settings differ. Extract them by that encoder.",
                field=modality,
            )


def _encoder(recipe: Any, modality: Modality) -> str:
    return f"{recipe.config['encoders'][modality]['spec']} ({recipe.encoders[modality][:16]})"
