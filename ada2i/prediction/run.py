"""One prediction from request to manifest. Does not depend on Ray."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ada2i import storage
from ada2i.environment import revision
from ada2i.evaluation.metrics import scores
from ada2i.fast.threads import restored_torch
from ada2i.jobs.events import Progress
from ada2i.jobs.fanout import Call, RunTasks, run_here
from ada2i.prediction.records import DONE, LEAST_DIALOGUES, MANIFEST, Part, PredictionManifest, PredictionRequest, sweep
from ada2i.prediction.worker import Worker, done_uri
from ada2i.records import FileEntry, Scores

_PACKAGE = Path(__file__).resolve().parents[1]

Padded = dict[int, list[int]]  # by shard: the length to which each of its dialogues is padded


def predict(
    uri: str, request: PredictionRequest, run_tasks: RunTasks, *, report: Callable[..., None], code: str
) -> PredictionManifest:
    """Predict all shards that have no part yet, and write the manifest.

    Args:
        uri: The prediction's folder.
        request: The request.
        run_tasks: Runs tasks on workers (``worker.Worker``).
        report: Reports an event, as ``events.emit`` does.
        code: The commit or version of this package.

    Raises:
        IntegrityError: A shard or a file of the version is damaged.
    """
    numbers = range(len(request.shards))
    there = set(storage.children(storage.join(uri, DONE)))
    left = [number for number in numbers if done_uri(uri, number).rsplit("/", 1)[1] not in there]
    padded = padded_lengths(request, run_tasks) if request.attends_to_padding and left else None
    report("planned", shards=len(numbers), done=len(numbers) - len(left))
    total = sum(shard.rows for shard in request.shards)
    progress = Progress(report, total, before=total - sum(request.shards[number].rows for number in left))
    for rows in run_tasks([("predict", (number, padded and padded[number])) for number in left]):
        progress.add(rows)
    manifest = _manifest(request, [Part.load(done_uri(uri, number)) for number in numbers], code)
    storage.put(storage.join(request.out, MANIFEST), manifest.stored())
    # Deleted last: what a crash leaves of these only takes space; the same command deletes it.
    sweep(uri)
    return manifest


def predict_here(uri: str, request: PredictionRequest, *, report: Callable[..., None]) -> PredictionManifest:
    """Predict in this process, with one thread and on the CPU: the same bytes as by workers, without a cluster.

    Args:
        uri: The prediction's folder.
        request: The request.
        report: Reports an event, as ``events.emit`` does.
    """
    report("started", run_id=request.run_id, workers=1, device="cpu", reason="in this process")
    with restored_torch():
        return predict(uri, request, run_here(Worker(uri, request, "cpu")), report=report, code=code())


def code() -> str:
    """Return the commit of this package, or its version if it is not run from a repository."""
    return revision(_PACKAGE) or f"ada2i {metadata.version('ada2i')}"


def padded_lengths(request: PredictionRequest, run_tasks: RunTasks) -> Padded:
    """Return the lengths to which dialogues are padded, by shard, for a model whose predictions depend on padding.

    As in evaluation, dialogues of a split are padded in consecutive groups to the longest of the group. So the numbers
    of shards, batches and workers change nothing.
    """
    calls: list[Call] = [("lengths", (number,)) for number in range(len(request.shards))]
    found = {number: (splits, lengths) for number, splits, lengths in run_tasks(calls)}
    places: dict[str, list[tuple[int, int]]] = defaultdict(list)  # by split: shard, place in it
    for number in sorted(found):
        for place, split in enumerate(found[number][0]):
            places[split].append((number, place))
    padded = {number: list(lengths) for number, (_, lengths) in found.items()}
    for homes in places.values():
        for first in range(0, len(homes), request.group):
            group = homes[first : first + request.group]
            longest = max(found[number][1][place] for number, place in group)
            for number, place in group:
                padded[number][place] = longest
    return padded


def _manifest(request: PredictionRequest, parts: Sequence[Part], code: str) -> PredictionManifest:
    labels = request.version.features.labels
    counts = np.sum([part.predicted for part in parts], axis=0).tolist() if parts else [0] * len(labels)
    # Sums over few dialogues say much about each one; and parts of an older version have none.
    enough = sum(part.dialogues for part in parts) >= LEAST_DIALOGUES and all(part.sums for part in parts)
    return PredictionManifest(
        run_id=request.run_id,
        model=request.version.model,
        version=request.version.number,
        source=request.source,
        fingerprint=request.fingerprint,
        synthetic=request.synthetic,
        split=request.split,
        labels=labels,
        utterances=sum(part.rows for part in parts),
        dialogues=sum(part.dialogues for part in parts),
        predicted=dict(zip(labels, counts, strict=True)),
        withheld=sum(part.withheld for part in parts),
        scores=_scores(request, [part.confusion for part in parts]),
        sums=tuple(np.sum([part.sums for part in parts], axis=0).tolist()) if enough else (),
        code=code,
        files={part.name: FileEntry(size=part.size, sha256=part.sha256) for part in parts},
    )


def _scores(request: PredictionRequest, counts: Sequence[Mapping[str, Any]]) -> tuple[Scores, ...]:
    """Return the scores of each split with labels; empty if the source has classes that the model lacks."""
    labels = request.version.features.labels
    if not set(request.labels) <= set(labels):
        return ()
    order = [labels.index(name) for name in request.labels]
    found = []
    for split in dict.fromkeys(split for each in counts for split in each):
        total = np.zeros((len(labels), len(labels)), np.int64)
        total[order] = np.sum([each[split] for each in counts if split in each], axis=0)
        found.append(scores(total, labels, split))
    return tuple(found)
