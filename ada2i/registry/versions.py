"""Versions of a model on any storage: immutable, complete or invisible, numbered without a server or a lock.

`<root>/registry/<model>/versions/<number>/` holds the files; ``manifest.json``, written last and only if absent, makes
the version exist. ``claim.json``, also written only if absent, gives a number to one run, so that two registrations
never write into one folder; a claim without manifest is what a killed registration leaves, and the same run, registered
again, completes it (or takes the next number, where the claim was all that it left).
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

from ada2i import storage
from ada2i.errors import ConfigError, NotFoundError
from ada2i.records import (
    FeatureInfo,
    FileEntry,
    FolderManifest,
    Record,
    RunResult,
    Summary,
    get_folder_file,
    put_folder_file,
    seed_uri,
)

MANIFEST, CLAIM = "manifest.json", "claim.json"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class Claim(Record):
    """Who has a version number."""

    run_id: str


class Version(Record):
    """A registered version: its manifest."""

    schema_version: Literal[1] = 1
    model: str
    number: int
    created: str  # UTC, ISO 8601
    run_id: str
    run_uri: str
    preset: str
    settings: str
    features: FeatureInfo
    seed: int  # whose weights these are: the best on dev
    seeds: tuple[int, ...]
    dev_weighted_f1: float
    test_summary: dict[str, Summary]
    protocol: str
    files: dict[str, FileEntry]


def check_model_name(model: str) -> None:
    """Refuse a name that makes no safe folder.

    Raises:
        ConfigError: It has other characters than small letters, digits, dots, dashes and underscores.
    """
    if not _NAME.fullmatch(model):
        raise ConfigError(
            f"A model's name must be of small letters, digits, `.`, `-` and `_`, 63 at most, but is {model!r}. "
            "Rename it with `--model`.",
            field="model",
        )


def register(run_uri: str, *, root: str, model: str | None = None) -> Version:
    """Register a run's best seed (on dev) as the next version; the same run always gets the same version.

    Args:
        run_uri: The run.
        root: The storage root.
        model: The model's name; by default that of the dataset, behind ``ada2i-``.

    Raises:
        NotFoundError: The run has not been evaluated.
        IntegrityError: The checkpoint's weights differ from their digest.
    """
    if model is not None:
        check_model_name(model)
    result = RunResult.load(storage.join(run_uri, "result.json"))
    model = model or f"ada2i-{result.features.dataset}"  # versions of one model are there to be compared
    home = storage.join(storage.normalise(root), "registry", model)
    number = _number(home, result.run_id)
    uri = _version_uri(home, number)
    if storage.exists(storage.join(uri, MANIFEST)):
        return Version.load(storage.join(uri, MANIFEST))
    entries = {name: put_folder_file(uri, name, data) for name, data in _contents(result)}
    # A crash up to here leaves a claimed number without a version: invisible, and completed when the run registers
    # again.
    storage.put_if_absent(storage.join(uri, MANIFEST), _version(result, model, number, entries).to_json())
    return Version.load(storage.join(uri, MANIFEST))


def versions(root: str, model: str) -> list[Version]:
    """Return all versions of a model, oldest first; none where there is no such model."""
    home = storage.join(storage.normalise(root), "registry", model)
    found = []
    for number in _numbers(home):
        manifest = storage.join(_version_uri(home, number), MANIFEST)
        if storage.exists(manifest):
            found.append(Version.load(manifest))
    return found


def models(root: str) -> list[str]:
    """Return the names of all models that have a registry folder."""
    return storage.children(storage.join(storage.normalise(root), "registry"))


def find(root: str, model: str, number: int | None = None) -> Version:
    """Return one version, the newest by default.

    Raises:
        NotFoundError: There is no such version.
    """
    found = [v for v in versions(root, model) if number in (None, v.number)]
    if not found:
        wanted = model if number is None else f"{model}@{number}"
        raise NotFoundError(
            f"{root} must hold a version {wanted}, but does not. `ada2i registry list` shows what there is."
        )
    return found[-1]


def version_uri(root: str, version: Version) -> str:
    """Return the folder of a version."""
    return _version_uri(storage.join(storage.normalise(root), "registry", version.model), version.number)


def _version_uri(home: str, number: int) -> str:
    return storage.join(home, "versions", str(number))


def _numbers(home: str) -> list[int]:
    return sorted(int(name) for name in storage.children(storage.join(home, "versions")) if name.isdigit())


def _number(home: str, run_id: str) -> int:
    """Return the number claimed for a run, claiming the next one where it has none."""
    pointer = storage.join(home, "runs", f"{run_id}.json")
    if not storage.exists(pointer):
        number = _claim(home, run_id)
        # A crash in between leaves a claim that no run finds again: a gap in the numbers, and nothing else.
        # Of two registrations of one run at once, the pointer has one winner, and both go on with its number.
        storage.put_if_absent(pointer, str(number).encode())
    return int(storage.get(pointer))


def _claim(home: str, run_id: str) -> int:
    claim = Claim(run_id=run_id).to_json()
    number = max(_numbers(home), default=0) + 1
    while not storage.put_if_absent(storage.join(_version_uri(home, number), CLAIM), claim):
        number += 1
    return number


def _contents(result: RunResult) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a version, each read once and checked where it has a digest."""
    best = next(seed for seed in result.seeds if seed.seed == result.best_seed)
    manifest = FolderManifest.load(storage.join(best.checkpoint_uri, MANIFEST))
    weights = "weights.safetensors"
    yield weights, get_folder_file(best.checkpoint_uri, weights, manifest.files[weights])
    yield "config.json", result.config.model_dump_json(indent=1).encode()
    yield "result.json", result.to_json()
    yield "predictions.parquet", storage.get(storage.join(seed_uri(result.run_uri, best.seed), "predictions.parquet"))
    for name in ("environment.json", "report.html", "README.md"):
        yield name, storage.get(storage.join(result.run_uri, name))


def _version(result: RunResult, model: str, number: int, files: dict[str, FileEntry]) -> Version:
    best = next(seed for seed in result.seeds if seed.seed == result.best_seed)
    return Version(
        model=model,
        number=number,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        run_id=result.run_id,
        run_uri=result.run_uri,
        preset=result.config.preset,
        settings=result.config.settings,
        features=result.features,
        seed=best.seed,
        seeds=tuple(seed.seed for seed in result.seeds),
        dev_weighted_f1=best.dev.weighted_f1,
        test_summary=result.test_summary,
        protocol=result.protocol,
        files=files,
    )
