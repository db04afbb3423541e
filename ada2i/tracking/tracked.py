"""What a tracker gets of a version, read from the store; the same for all trackers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from ada2i.presets import flat
from ada2i.records import EpochRecord, RunResult
from ada2i.registry.aliases import aliases
from ada2i.registry.verdicts import verdicts
from ada2i.registry.versions import Version, read_file, versions

_PLACES = ("epoch", "step")  # of a record; they are the axis


@dataclass(frozen=True)
class Tracked:
    """A version as a tracker shows it.

    Attributes:
        name: MODEL@NUMBER.
        model: The model.
        ended: When it was registered, in seconds since 1970.
        seconds: How long its seeds were trained.
        params: The config, by dotted field.
        tags: Dataset, features, digests, verdicts, aliases; short texts.
        epochs: By epoch, metrics named ``seed_SEED/METRIC`` or ``seed_SEED/METRIC/MODALITY``.
        summary: Scores on test, ``test/METRIC`` and ``test/METRIC/sd``, and those of each seed.
        files: Artifacts by name.
    """

    name: str
    model: str
    ended: float
    seconds: float
    params: Mapping[str, str]
    tags: Mapping[str, str]
    epochs: Mapping[int, Mapping[str, float]]
    summary: Mapping[str, float]
    files: Mapping[str, bytes]


def tracked(root: str, model: str) -> Iterator[Tracked]:
    """Yield the versions of a model, oldest first.

    Raises:
        IntegrityError: A file of a version differs from the registered one.
    """
    held, judged = aliases(root, model), verdicts(root, model)
    for version in versions(root, model):
        result = RunResult.model_validate_json(read_file(root, version, "result.json"))
        names = sorted(alias for alias, move in held.items() if move.number == version.number)
        about = [v.judgement for v in judged if v.judgement.challenger == version.number]
        state = {
            "aliases": ",".join(names),
            "verdicts": "; ".join(f"{found.decision} as {found.alias}, {found.facts}" for found in about),
        }
        yield Tracked(
            name=version.name,
            model=model,
            ended=datetime.fromisoformat(version.created).timestamp(),
            seconds=sum(record.seconds for seed in result.seeds for record in seed.history),
            params={name: str(value) for name, value in flat(result.config.model_dump(mode="json")).items()},
            tags={**_tags(version, result), **state},
            epochs=_epochs(result),
            summary=dict(_summary(result)),
            files={name: read_file(root, version, name) for name in ("report.html", "README.md")},
        )


def _tags(version: Version, result: RunResult) -> dict[str, str]:
    return {
        "version": version.name,
        "dataset": version.features.dataset + " (SYNTHETIC)" * version.features.synthetic,
        "features": version.features.fingerprint,
        "run": version.run_id,
        "best_seed": str(version.seed),
        "protocol": version.protocol,
        "code": version.code or "unknown",
        "own_code": result.own_code_note,
    }


def _epochs(result: RunResult) -> dict[int, dict[str, float]]:
    found: dict[int, dict[str, float]] = {}
    for seed in result.seeds:
        for record in seed.history:
            found.setdefault(record.epoch, {}).update(
                {f"seed_{seed.seed}/{name}": value for name, value in _metrics(record)}
            )
    return dict(sorted(found.items()))


def _metrics(record: EpochRecord) -> Iterator[tuple[str, float]]:
    for name, value in record.model_dump().items():
        if isinstance(value, dict):
            yield from ((f"{name}/{modality}", float(part)) for modality, part in value.items())
        elif name not in _PLACES:
            yield name, float(value)


def _summary(result: RunResult) -> Iterator[tuple[str, float]]:
    for name, summary in result.test_summary.items():
        yield f"test/{name}", summary.mean
        if summary.sd is not None:
            yield f"test/{name}/sd", summary.sd
    for place, test in enumerate(result.tests):
        for name, summary in result.test_summary.items():
            yield f"seed_{test.seed}/test/{name}", summary.values[place]
