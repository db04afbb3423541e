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
    Metric("registry_verdicts", "Versions judged for an alias: promote or refuse", (*_ALIAS, "decision")),
    Metric("drift_ratio", "Largest statistic of a kind in the last compared window, as a share of its limit", _KIND),
    Metric("drift_detected", "Whether a statistic of the last compared window is above its limit", _ALIAS),
    Metric("drift_window", "When that window was stored, in seconds since 1970", _ALIAS),
)

Sample = tuple[str, float, dict[str, str]]  # name, value, labels


def measure(root: str, known: dict[str, float] | None = None) -> Iterator[Sample]:
    """Yield the value of every metric for every model under a root.

    Args:
        root: The storage root.
        known: Seconds of training by version, kept between calls, so that the result of a version is read once.

    Raises:
        DataError: Something is damaged; `ada2i registry verify` lists all damage.
        UnreachableError: The store does not answer.
    """
    known = {} if known is None else known
    for model in models(root):
        moves = aliases(root, model)  # first: whatever an alias is moved to meanwhile is a version by then
        found = {version.number: version for version in versions(root, model)}
        yield "registry_versions", len(found), {"model": model}
        places = {name: move.number for name, move in moves.items()} | ({NEWEST: max(found)} if found else {})
        compared = storage.objects(Store.open(root).drifts(model))
        for alias, number in places.items():
            for name, value, tags in _drift(root, model, number, compared):
                yield name, value, {"model": model, "alias": alias, **tags}
            version = found.get(number) or find(root, model, number)
            for name, value in _of_version(root, version, known):
                yield name, value, {"model": model, "alias": alias}
        for alias in moves:
            kinds = Counter(move.kind for move in history(root, model, alias))
            for kind, number in kinds.items():
                yield "registry_moves", number, {"model": model, "alias": alias, "kind": kind}
        judged = Counter((one.judgement.alias, one.judgement.decision) for one in verdicts(root, model))
        for (alias, decision), number in judged.items():
            yield "registry_verdicts", number, {"model": model, "alias": alias, "decision": decision}


def _of_version(root: str, version: Version, known: dict[str, float]) -> Iterator[tuple[str, float]]:
    if version.name not in known:
        result = _result(root, version)
        known[version.name] = sum(epoch.seconds for seed in result.seeds for epoch in seed.history)
    yield "registry_number", version.number
    yield "registry_created", datetime.fromisoformat(version.created).timestamp()
    yield "registry_dev_weighted_f1", version.dev_weighted_f1
    yield "registry_test_weighted_f1", version.test_summary["weighted_f1"].mean
    yield "registry_test_macro_f1", version.test_summary["macro_f1"].mean
    yield "registry_training_seconds", known[version.name]


def _drift(root: str, model: str, number: int, stamps: Mapping[str, str]) -> Iterator[Sample]:
    """Yield what the last comparison of a version found; nothing if there is none.

    Args:
        root: The storage root.
        model: The model.
        number: The version's number.
        stamps: By path in the model's folder of drift, the stamp of each object.
    """
    place = storage.join(Store.open(root).drift(model, number), DRIFT_SUMMARY)
    stamp = stamps.get(f"{number}/{DRIFT_SUMMARY}")
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


def _result(root: str, version: Version) -> RunResult:
    try:
        return RunResult.model_validate_json(read_file(root, version, "result.json"))
    except ValidationError as problem:
        place = f"{version_uri(root, version)}/result.json"
        raise DataError(
            f"{place} must hold a run's result of this version of ada2i, but {problem.error_count()} of its fields do "
            "not. It was written by another version of ada2i: read it with that one.",
            uri=place,
        ) from problem
