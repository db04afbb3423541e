"""One prediction from request to manifest, whoever does its calls."""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ada2i import storage
from ada2i.evaluation.metrics import scores
from ada2i.jobs.crew import Call
from ada2i.prediction.records import DONE, MANIFEST, Part, PredictionManifest, PredictionRequest, sweep
from ada2i.prediction.worker import done_uri
from ada2i.records import FileEntry, Scores

_TELL_SECONDS = 0.5  # between two messages

Padded = dict[int, list[int]]  # by shard: the length to which each of its dialogues is padded


class Crew(Protocol):
    """Workers that do calls."""

    def each(self, calls: Iterable[Call]) -> Iterator[Any]:
        """Call methods on whichever worker is idle; yield what they return, in the order in which they end."""

    def tell(self, kind: str, **facts: Any) -> None:
        """Tell followers how it goes."""


def predict(uri: str, request: PredictionRequest, crew: Crew, *, code: str) -> PredictionManifest:
    """Predict all shards that have no part yet, and write the manifest.

    Args:
        uri: The prediction's folder.
        request: What is asked for.
        crew: Who predicts.
        code: The commit or version of this package.

    Raises:
        IntegrityError: A shard or a file of the version is damaged.
    """
    numbers = range(len(request.shards))
    there = set(storage.children(storage.join(uri, DONE)))
    left = [number for number in numbers if done_uri(uri, number).rsplit("/", 1)[1] not in there]
    padded = padded_lengths(request, crew) if request.attends_to_padding and left else None
    crew.tell("planned", shards=len(numbers), done=len(numbers) - len(left))
    _follow(crew.each([("predict", (number, padded and padded[number])) for number in left]), request, left, crew)
    manifest = _manifest(request, [Part.load(done_uri(uri, number)) for number in numbers], code)
    storage.put(storage.join(request.out, MANIFEST), manifest.stored())
    # Last: what a crash leaves of these takes space and nothing else; the same command deletes it.
    sweep(uri)
    return manifest


def padded_lengths(request: PredictionRequest, crew: Crew) -> Padded:
    """Return the lengths to which dialogues are padded, by shard, for a model whose predictions depend on that.

    As in evaluation: dialogues of a split are padded in groups, one after the other, to the longest of the group. So
    shards, batches and workers change nothing.
    """
    found = {number: (splits, lengths) for number, splits, lengths in crew.each(_lengths_calls(request))}
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


def _lengths_calls(request: PredictionRequest) -> list[Call]:
    return [("lengths", (number,)) for number in range(len(request.shards))]


def _follow(answers: Iterator[int], request: PredictionRequest, left: Sequence[int], crew: Crew) -> None:
    """Tell now and then how far it is, in utterances."""
    total, done = sum(shard.rows for shard in request.shards), 0
    before = total - sum(request.shards[number].rows for number in left)
    begun, told = time.monotonic(), 0.0
    for rows in answers:
        done += rows
        now = time.monotonic()
        if before + done == total or now - told > _TELL_SECONDS:
            told = now
            rate = done / max(now - begun, 1e-3)
            seconds = round((total - before - done) / rate)
            crew.tell("progress", done=before + done, total=total, per_second=round(rate, 1), seconds_left=seconds)


def _manifest(request: PredictionRequest, parts: Sequence[Part], code: str) -> PredictionManifest:
    labels = request.version.features.labels
    counts = np.sum([part.predicted for part in parts], axis=0).tolist() if parts else [0] * len(labels)
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
        scores=_scores(request, [part.confusion for part in parts]),
        code=code,
        files={part.name: FileEntry(size=part.size, sha256=part.sha256) for part in parts},
    )


def _scores(request: PredictionRequest, counts: Sequence[Mapping[str, Any]]) -> tuple[Scores, ...]:
    """Return the scores of each split with labels; none where the source has classes that the model has not."""
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
