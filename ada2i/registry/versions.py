"""Versions of a model on any storage: immutable, complete or invisible, numbered without a server or a lock.

`<root>/registry/<model>/versions/<number>/` holds the files; ``manifest.json``, written last and only if absent, makes
the version exist. ``claim.json``, also written only if absent, gives a number to one run, so that two registrations
never write into one folder. A claim without manifest remains of a killed registration; when the same run is registered
again, it completes the version (or takes the next number, if only the claim remained).

No object is ever overwritten, except the manifest of a deleted version, which becomes ``SWEPT``. These bytes
retire the number permanently: a process that is still writing that version can no longer make it
visible, so it can be swept at any time.
"""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import Field

from ada2i import storage
from ada2i.display import similar
from ada2i.errors import ConfigError, DataError, IntegrityError, NotFoundError
from ada2i.records import (
    FeatureInfo,
    FileEntry,
    FileName,
    FolderManifest,
    Instant,
    ModelName,
    Number,
    OwnCode,
    Record,
    RunId,
    RunResult,
    Sealed,
    Teacher,
    Temperature,
    TestSummary,
    get_folder_file,
)
from ada2i.registry.card import code_revision, render_card
from ada2i.registry.paths import CLAIM, MANIFEST, home_uri, number_of, number_uri, numbers, place_of
from ada2i.store import RunFolder

SWEPT = b'{"schema_version": 1, "swept": true}\n'
_READERS = 16  # manifests that are read at once
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class Claim(Record):
    """The run that owns a version number."""

    run_id: RunId


class Version(Sealed):
    """A registered version: its manifest."""

    schema_version: Literal[1] = 1
    model: ModelName
    number: Number
    created: Instant
    run_id: RunId
    run_uri: str
    preset: str
    settings: str
    features: FeatureInfo
    seed: int  # of the run that trained these weights: the best on dev
    seeds: tuple[int, ...]
    dev_weighted_f1: float
    test_summary: TestSummary
    protocol: str
    files: dict[FileName, FileEntry]
    temperature: Temperature = Field(1.0, exclude_if=lambda temperature: temperature == 1.0)  # of its probabilities
    code: str | None = None  # the commit that trained it, else the package's version
    ray_job_id: str | None = None
    flow_run_id: str | None = None  # Prefect's id; None if no flow registered it
    own_code: OwnCode = Field(default_factory=dict, exclude_if=lambda own_code: not own_code)
    teachers: tuple[Teacher, ...] = Field((), exclude_if=lambda teachers: not teachers)

    @property
    def name(self) -> str:
        """MODEL@NUMBER, the form that commands take."""
        return f"{self.model}@{self.number}"


def check_model_name(model: str) -> None:
    """Refuse a name that is not a safe folder name.

    Raises:
        ConfigError: It has characters other than lower-case letters, digits, dots, dashes and underscores.
    """
    if not _NAME.fullmatch(model):
        found = "an address" if "://" in model else repr(model[:80])  # which may hold a password
        raise ConfigError(
            f"A model's name must be lower-case letters, digits, `.`, `-` and `_`, at most 63, but is {found}. "
            "`ada2i registry list` shows the existing ones.",
            field="model",
        )


def model_name(features: FeatureInfo, model: str | None) -> str:
    """Return the name of a model: the given one, or ``ada2i-`` followed by the dataset's.

    Raises:
        ConfigError: It is not a safe folder name.
    """
    name = f"ada2i-{features.dataset}" if model is None else model  # versions of one model can be compared
    check_model_name(name)
    return name


def check_same_kind(root: str, features: FeatureInfo) -> None:
    """Check that the newest version under the default name has the features' classes and widths.

    Raises:
        ConfigError: It has others, so the two would not be versions of one model; the caller must name the model.
    """
    name = model_name(features, None)
    try:
        newest = find(root, name)
    except NotFoundError:  # this will be the first version
        return
    shared = newest.features.widths.keys() & features.widths.keys()
    then = {"classes": newest.features.labels, "widths": {m: newest.features.widths[m] for m in sorted(shared)}}
    now = {"classes": features.labels, "widths": {m: features.widths[m] for m in sorted(shared)}}
    if different := [f"{what} {then[what]} there, {now[what]} now" for what in then if then[what] != now[what]]:
        raise ConfigError(
            f"A new version of {name} must have the classes and widths of {newest.name}, but has others: "
            f"{'; '.join(different)}. Name another model with `--model`, or `--model {name}` to continue this one.",
            field="model",
        )


def register(run_uri: str, *, root: str, model: str | None = None, flow_run_id: str | None = None) -> Version:
    """Register a run's best seed (on dev) as the next version; the same run always gets the same version.

    Args:
        run_uri: The run.
        root: The storage root.
        model: The model's name; by default ``ada2i-`` followed by the dataset's.
        flow_run_id: The Prefect flow run that registers it.

    Raises:
        NotFoundError: The run has not been evaluated.
        IntegrityError: The checkpoint's weights differ from their digest, or another run has the number.
    """
    if model is not None:
        check_model_name(model)
    result = _result(RunFolder(storage.normalise(run_uri)))
    model = model_name(result.features, model)
    home, pointer = home_uri(root, model), result.run_id
    while True:
        number = _number(home, pointer, result.run_id)
        version = _complete(result, model, number, number_uri(home, number), flow_run_id)
        if version is not None:
            return version
        pointer = f"{result.run_id}/after-{number}"  # that number was swept, so the run gets another


def versions(root: str, model: str) -> list[Version]:
    """Return all versions of a model, oldest first; an empty list if the model does not exist.

    On S3 manifests that this machine has read before are not read again: the listing says whether they changed.
    """
    home = home_uri(root, model)
    stamps = storage.objects(storage.join(home, "versions"))
    names = {n: f"{n}/{MANIFEST}" for name in stamps if (n := number_of(name.partition("/")[0])) is not None}
    held = [(number_uri(home, n), stamps[names[n]]) for n in sorted(names) if names[n] in stamps]
    with ThreadPoolExecutor(_READERS) as readers:
        found = readers.map(lambda place: load_version(*place), held)
        return [version for version in found if version is not None]


def newest_first(root: str, model: str) -> Iterator[Version]:
    """Yield all versions of a model, the newest first, each read when it is needed."""
    home = home_uri(root, model)
    for number in reversed(numbers(home)):
        if newest := load_version(number_uri(home, number)):
            yield newest
            yield from (version for version in reversed(versions(root, model)) if version.number < number)
            return


def is_registered(root: str, model: str, run_id: str) -> bool:
    """Return whether a run is registered as a version of a model, or its registration has begun."""
    return storage.exists(storage.join(home_uri(root, model), "runs", f"{run_id}.json"))


def models(root: str) -> list[str]:
    """Return the names of all models that have a registry folder; other names are passed over."""
    names = storage.children(storage.join(storage.normalise(root), "registry"))
    return [name for name in names if _NAME.fullmatch(name)]


def check_known(root: str, model: str) -> None:
    """Check that a model has a registry folder.

    Raises:
        ConfigError: The name is no model's name.
        NotFoundError: There is no such model; the message suggests a similar name.
    """
    check_model_name(model)
    if model not in (known := models(root)):
        raise NotFoundError(
            f"{storage.normalise(root)} must hold the model {model}, but holds {', '.join(known) or 'none'}."
            f"{similar(model, known)} `ada2i registry list` lists all versions.",
            model=model,
        )


def find(root: str, model: str, number: int | None = None) -> Version:
    """Return one version, the newest by default.

    Raises:
        NotFoundError: There is no such version.
        IntegrityError: Its manifest is damaged.
    """
    home = home_uri(root, model)
    for candidate in reversed(numbers(home)) if number is None else [number]:
        version = load_version(number_uri(home, candidate))
        if version is not None:
            return version
    wanted = model if number is None else f"{model}@{number}"
    raise NotFoundError(
        f"{root} must hold a version {wanted}, but does not. `ada2i registry list` shows the existing ones."
    )


def load_version(uri: str, stamp: str = "") -> Version | None:
    """Return the version in a folder, or None if it is unfinished, swept or does not exist.

    Args:
        uri: The folder.
        stamp: The manifest's stamp from ``storage.objects``, just listed; by default the manifest is read in any case.

    Raises:
        DataError: Its manifest is damaged, or has another schema version.
        IntegrityError: Its manifest is that of another version.
    """
    place = storage.join(uri, MANIFEST)
    try:
        data = storage.get(place, stamp=stamp)
    except NotFoundError:
        return None
    if data == SWEPT:
        return None
    version, expected = Version.opened(data, place), place_of(uri)
    if expected is not None and (version.model, version.number) != expected:
        raise IntegrityError(
            f"{place} must be the manifest of {expected[0]}@{expected[1]}, but is that of {version.name}. Restore it.",
            uri=place,
        )
    return version


def version_uri(root: str, version: Version) -> str:
    """Return the folder of a version."""
    return number_uri(home_uri(root, version.model), version.number)


def read_file(root: str, version: Version, name: str) -> bytes:
    """Return one of a version's files, checked against its digest.

    Raises:
        IntegrityError: Its bytes are not those that were registered.
        NotFoundError: The version has no such file.
    """
    if name not in version.files:
        raise NotFoundError(
            f"{version.name} must hold {name}, but holds {', '.join(version.files)}. Name one of these."
        )
    return get_folder_file(version_uri(root, version), name, version.files[name])


def _number(home: str, pointer: str, run_id: str) -> int:
    """Return the number that a run's pointer names; if there is no pointer, claim the next number."""
    place = storage.join(home, "runs", f"{pointer}.json")
    if not storage.exists(place):
        claimed = _claim(home, run_id)
        # A crash here leaves a claim that no run finds again: a gap in the numbers, which a sweep retires.
        # If one run is registered twice at once, one pointer wins, and both registrations continue with its number.
        storage.put_if_absent(place, str(claimed).encode())
    number = number_of(storage.get(place).decode(errors="replace"))
    if number is None:
        raise IntegrityError(f"{place} must hold a version number, but does not. Restore it.", uri=place)
    claim = storage.join(number_uri(home, number), CLAIM)
    if storage.exists(claim) and (owner := Claim.load(claim).run_id) != run_id:  # a swept number has no claim
        raise IntegrityError(
            f"{place} must name the version number of run {run_id}, but names {number}, which run {owner} has. One of "
            "the two was changed or damaged: restore it.",
            uri=place,
        )
    return number


def _claim(home: str, run_id: str) -> int:
    claim = Claim(run_id=run_id).to_json()
    number = max(numbers(home), default=0) + 1
    if number_of(str(number)) is None:
        raise IntegrityError(
            f"{home}/versions must hold numbers with fewer than 10 digits, but holds {number - 1}. Move it away.",
            uri=home,
        )
    while not _write_once(storage.join(number_uri(home, number), CLAIM), claim):
        number += 1
    return number


def _complete(result: RunResult, model: str, number: int, uri: str, flow_run_id: str | None) -> Version | None:
    """Return the version of a claimed number; write it if it does not exist. Return None if the number is retired."""
    place = storage.join(uri, MANIFEST)
    if not storage.exists(place):
        entries, whole = {}, True
        for name, data in _contents(result, model, number):
            entries[name] = FileEntry(size=len(data), sha256=storage.digest(data))
            whole = whole and _write_once(storage.join(uri, name), data)
        # A crash up to here leaves a claimed number without a version. It is invisible; it is completed when the run is
        # registered again, or deleted by a sweep. If it has other bytes than the run has now, the number is given up.
        version = _version(result, model, number, entries).model_copy(update={"flow_run_id": flow_run_id})
        manifest = version.sealed().to_json() if whole else SWEPT
        storage.put_if_absent(place, manifest)
    return load_version(uri)


def _write_once(uri: str, data: bytes) -> bool:
    """Write an object unless it exists; return whether it holds exactly these bytes."""
    return storage.put_if_absent(uri, data) or storage.get(uri) == data


def _result(run: RunFolder) -> RunResult:
    """Return the result of a run, all of whose files lie in its folder.

    Raises:
        IntegrityError: It is that of another run, or names files elsewhere.
    """
    result = run.result()
    homes = {run.seed(seed.seed).uri: seed.checkpoint_uri.rsplit("/", 2)[0] for seed in result.seeds}
    if (result.run_id, result.run_uri) != (run.run_id, run.uri) or any(home != found for home, found in homes.items()):
        raise IntegrityError(
            f"{run.result_uri} must be the result of run {run.run_id} in its folder, but names run {result.run_id} in "
            f"{result.run_uri}, or checkpoints elsewhere. Restore it, or train again.",
            uri=run.result_uri,
        )
    return result


def _contents(result: RunResult, model: str, number: int) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a version, each read once and checked if it has a digest; a repeated call yields the same."""
    best = result.best
    manifest = FolderManifest.load(storage.join(best.checkpoint_uri, MANIFEST))
    weights = "weights.safetensors"
    stored = manifest.stored_name(weights) or weights
    yield weights, get_folder_file(best.checkpoint_uri, stored, manifest.files[stored])
    yield "config.json", result.config.model_dump_json(indent=1).encode()
    yield "result.json", result.to_json()
    folder, name = RunFolder(result.run_uri).seed(best.seed).uri, "predictions.parquet"
    yield name, get_folder_file(folder, name, result.best_test.predictions)
    for name in ("environment.json", "report.html"):
        yield name, get_folder_file(result.run_uri, name, result.files.get(name))
    scores = get_folder_file(result.run_uri, "README.md", result.files.get("README.md")).decode()
    yield "README.md", render_card(result, _environment(result), scores, name=f"{model}@{number}").encode()


def _environment(result: RunResult) -> dict[str, Any]:
    place = storage.join(result.run_uri, "environment.json")
    try:
        found = json.loads(get_folder_file(result.run_uri, "environment.json", result.files.get("environment.json")))
    except (ValueError, RecursionError) as problem:
        raise DataError(f"{place} must be JSON, but: {problem}. Train the run again.", uri=place) from problem
    if not isinstance(found, dict):
        raise DataError(f"{place} must be a JSON object, but is not. Train the run again.", uri=place)
    return found


def _version(result: RunResult, model: str, number: int, files: dict[str, FileEntry]) -> Version:
    environment = _environment(result)
    calibration = result.best_test.calibration
    return Version(
        model=model,
        number=number,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        run_id=result.run_id,
        run_uri=result.run_uri,
        preset=result.config.preset,
        settings=result.config.settings,
        features=result.features,
        seed=result.best_seed,
        seeds=tuple(seed.seed for seed in result.seeds),
        dev_weighted_f1=result.best.dev.weighted_f1,
        test_summary=result.test_summary,
        protocol=result.protocol,
        files=files,
        temperature=1.0 if calibration is None else calibration.temperature,
        code=code_revision(environment),
        ray_job_id=environment.get("ray_job_id"),
        own_code=result.own_code,
        teachers=result.teachers,
    )
