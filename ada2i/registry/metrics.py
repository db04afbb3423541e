"""Registry metrics for Prometheus.

They are read from storage, so they count the registrations and moves of all processes.

`alias` is the name of an alias, or `newest` for a model's newest version.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime

from pydantic import ValidationError

from ada2i import storage
from ada2i.errors import DataError
from ada2i.jobs.metrics import Metric
from ada2i.records import DriftSummary, RunResult
from ada2i.registry.aliases import aliases, history
from ada2i.registry.verdicts import verdicts
from ada2i.registry.versions import Version, find, models, read_file, version_uri, versions
from ada2i.store import DRIFT_SUMMARY, Store

log = logging.getLogger(__name__)

NEWEST = "newest"
_ALIAS = ("model", "alias")
_KIND = (*_ALIAS, "kind")

METRICS = (
    Metric("registry_versions", "Versions of a model", ("model",)),
    Metric("registry_number", "Number of the version", _ALIAS),
    Metric("registry_created", "When the version was registered, in seconds since 1970", _ALIAS),
    Metric("registry_dev_weighted_f1", "Weighted F1 of the version on dev", _ALIAS),
    Metric("registry_test_weighted_f1", "Weighted F1 on test, mean over the seeds of the version's run", _ALIAS),
    Metric("registry_test_macro_f1", "Macro F1 on test, mean over the seeds of the version's run", _ALIAS),
    Metric("registry_training_seconds", "Seconds that the epochs of the version's run took, all seeds", _ALIAS),
    Metric("registry_moves", "Moves of an alias, promotions or rollbacks", _KIND),
    Metric("registry_verdicts", "Verdicts for an alias, by decision: promote or refuse", (*_ALIAS, "decision")),
    Metric("drift_ratio", "Largest statistic of a kind in the last compared window, as a share of its limit", _KIND),
    Metric("drift_detected", "Whether a statistic of the last compared window is above its limit", _ALIAS),
    Metric("drift_window", "When that window was stored, in seconds since 1970", _ALIAS),
)

Sample = tuple[str, float, dict[str, str]]  # name, value, labels


def measure(root: str, known: dict[str, float | None] | None = None) -> Iterator[Sample]:
    """Yield the value of every metric for every model under a root.

    Args:
        root: The storage root.
        known: Seconds of training by version, kept between calls, so that the result of a version is read once; None if
            it cannot be read.

    Raises:
        DataError: Something is damaged; `ada2i registry verify` lists all damage.
        UnreachableError: The store does not answer.
    """
    known = {} if known is None else known
    for model in models(root):
        moves = aliases(root, model)  # read before the versions: a version that an alias names exists by then
        found = {version.number: version for version in versions(root, model)}
        yield "registry_versions", len(found), {"model": model}
        numbers = {name: move.number for name, move in moves.items()} | ({NEWEST: max(found)} if found else {})
        folder = Store.open(root).drifts(model)
        compared = storage.objects(folder)
        for alias, number in numbers.items():
            for name, value, tags in _drift(folder, model, number, compared):
                yield name, value, {"model": model, "alias": alias, **tags}
            version = found.get(number) or find(root, model, number)
            for name, value in _of_version(root, version, known):
                yield name, value, {"model": model, "alias": alias}
        for alias in moves:
            kinds = Counter(move.kind for move in history(root, model, alias))
            for kind, moved in kinds.items():
                yield "registry_moves", moved, {"model": model, "alias": alias, "kind": kind}
        judged = Counter((one.judgement.alias, one.judgement.decision) for one in verdicts(root, model))
        for (alias, decision), count in judged.items():
            yield "registry_verdicts", count, {"model": model, "alias": alias, "decision": decision}


def _of_version(root: str, version: Version, known: dict[str, float | None]) -> Iterator[tuple[str, float]]:
    yield "registry_number", version.number
    yield "registry_created", datetime.fromisoformat(version.created).timestamp()
    yield "registry_dev_weighted_f1", version.dev_weighted_f1
    yield "registry_test_weighted_f1", version.test_summary["weighted_f1"].mean
    yield "registry_test_macro_f1", version.test_summary["macro_f1"].mean
    if version.name not in known:
        known[version.name] = _training_seconds(root, version)
    if (seconds := known[version.name]) is not None:
        yield "registry_training_seconds", seconds


def _training_seconds(root: str, version: Version) -> float | None:
    """Return how long a version's epochs took; None if another version of ada2i wrote its result."""
    place = storage.join(version_uri(root, version), "result.json")
    try:
        result = RunResult.model_validate_json(read_file(root, version, "result.json"))
    except ValidationError as problem:
        log.warning(
            "%s must hold a run's result of this version of ada2i, but %d of its fields do not: its training time has "
            "no metric. Another version of ada2i wrote it.",
            place,
            problem.error_count(),
        )
        return None
    return sum(epoch.seconds for seed in result.seeds for epoch in seed.history)


def _drift(folder: str, model: str, number: int, stamps: Mapping[str, str]) -> Iterator[Sample]:
    """Yield what the last comparison of a version found; nothing if there is none.

    Args:
        folder: The model's folder of drift.
        model: The model.
        number: The version's number.
        stamps: By path in the folder, the stamp of each object.
    """
    path = f"{number}/{DRIFT_SUMMARY}"
    stamp, place = stamps.get(path), storage.join(folder, path)
    if stamp is None:
        return
    try:
        summary = DriftSummary.opened(storage.get(place, stamp=stamp), place)
    except DataError as problem:
        log.warning("%s `ada2i drift %s@%d` writes it again.", problem.message, model, number)
        return
    for kind, ratio in summary.ratios.items():
        yield "drift_ratio", ratio, {"kind": kind}
    yield "drift_detected", float(summary.drifted), {}
    yield "drift_window", datetime.fromisoformat(summary.created).timestamp(), {}
