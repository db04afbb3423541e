"""One extraction from request to feature set: plan, encode what is not cached, publish. Does not depend on Ray."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from ada2i import storage
from ada2i.data.provenance import EncoderInfo
from ada2i.devices import restored
from ada2i.extraction.cache import DigestCache, VectorCache
from ada2i.extraction.config import ExtractionConfig
from ada2i.extraction.encoders.base import joint_info
from ada2i.extraction.outcome import Outcome, joint_outcome
from ada2i.extraction.plan import Piece, Plan, chunks, files_of, item_of, plan
from ada2i.extraction.publish import publish, publish_table
from ada2i.extraction.report import gather
from ada2i.extraction.request import RESULT, ExtractionRequest, ExtractionResult, Work
from ada2i.extraction.utterance import Corpus
from ada2i.extraction.work import Worker
from ada2i.fast.threads import restored_torch
from ada2i.jobs.events import Progress
from ada2i.jobs.fanout import Call, RunTasks, run_here
from ada2i.modalities import MODALITIES, Modality

_FILES = 64  # files per digest task
_SLOWEST_FIRST = MODALITIES[::-1]  # avoids long chunks at the end

# The pieces of a modality that some of its encoders have not encoded, by the indices of these encoders, then by key.
Left: TypeAlias = Mapping[tuple[int, ...], Mapping[str, Piece]]


def extract(
    uri: str, request: ExtractionRequest, run_tasks: RunTasks, *, report: Callable[..., None]
) -> ExtractionResult:
    """Run the extraction of a request; resume where an earlier attempt ended.

    Args:
        uri: The extraction's folder.
        request: The request.
        run_tasks: Runs tasks on workers (``work.Worker``).
        report: Reports an event, as ``events.emit`` does.

    Raises:
        DataError: The corpus cannot become a feature set, or too many clips are unreadable.
    """
    begun = time.monotonic()
    corpus, config = request.corpus(), request.config
    held = [m for m in config.encoders if any(item_of(item, m) is not None for item in corpus.utterances)]
    encoders = _describe(held, run_tasks)
    plans = _plan(request, corpus, held, run_tasks)
    stores = {
        m: [VectorCache(request.root, info.folder(), info.width) for info in infos] for m, infos in encoders.items()
    }
    found = {one.modality: [store.read(one.distinct.keys()) for store in stores[one.modality]] for one in plans}
    left = {one.modality: _left(one, found[one.modality]) for one in plans}
    work = {one.modality: _work(one, left[one.modality]) for one in plans}
    report("planned", work={modality: each.model_dump() for modality, each in work.items()})
    encode(left, config, run_tasks, report=report)
    for modality, groups in left.items():
        for part, store in enumerate(stores[modality]):
            found[modality][part] |= store.read(
                {key for parts, group in groups.items() if part in parts for key in group}
            )
    extracted = [gather(one, joint_info(encoders[one.modality]), _joined(found[one.modality])) for one in plans]
    if request.labelled:
        features = publish(request.root, corpus, extracted, config, kind=request.kind, log=uri)
    else:
        features = publish_table(corpus, extracted, config, log=uri)
    problems = sum(one is not None and one.vector is None for each in extracted for one in each.outcomes)
    result = ExtractionResult(
        features=features, work=work, problems=problems, seconds=round(time.monotonic() - begun, 2)
    )
    # Written last: a crash before this leaves a complete feature set, which the next attempt finds and keeps.
    storage.put(storage.join(uri, RESULT), result.stored())
    return result


def extract_here(uri: str, request: ExtractionRequest, *, report: Callable[..., None]) -> ExtractionResult:
    """Run the extraction of a request in this process, on the CPU unless the config requests a GPU; see ``extract``."""
    device = "cuda" if request.config.device == "cuda" else "cpu"
    report("started", run_id=request.run_id, workers=1, device=device, reason="in this process")
    with restored_torch(), restored():
        return extract(uri, request, run_here(Worker(request.root, request.config, device)), report=report)


def _describe(modalities: Sequence[Modality], run_tasks: RunTasks) -> dict[Modality, list[EncoderInfo]]:
    infos = {each[0].modality: each for each in run_tasks([("describe", (modality,)) for modality in modalities])}
    return {modality: infos[modality] for modality in modalities}


def _plan(
    request: ExtractionRequest, corpus: Corpus, modalities: Sequence[Modality], run_tasks: RunTasks
) -> list[Plan]:
    files = files_of(corpus, modalities)
    stamps = storage.source_stamps(files)  # before the files are read: a file written in between is read again
    index = DigestCache(request.root)
    digests = index.read(stamps)
    unknown = [file for file in files if file not in digests]
    new: dict[str, str] = {}
    for part in run_tasks([("digests", (unknown[n : n + _FILES],)) for n in range(0, len(unknown), _FILES)]):
        new |= part
    index.write(new, stamps)
    return [plan(corpus, modality, digests | new, request.config.media) for modality in modalities]


def _left(one: Plan, found: Sequence[Mapping[str, Outcome]]) -> Left:
    left: dict[tuple[int, ...], dict[str, Piece]] = {}
    for key, piece in one.distinct.items():
        if parts := tuple(part for part, held in enumerate(found) if key not in held):
            left.setdefault(parts, {})[key] = piece
    return left


def _joined(found: Sequence[Mapping[str, Outcome]]) -> dict[str, Outcome]:
    """Return each key's outcome of all encoders of a modality together."""
    return {key: joint_outcome([held[key] for held in found]) for key in found[0]}


def _work(one: Plan, left: Left) -> Work:
    utterances = sum(piece is not None for piece in one.pieces)
    return Work(encoded=_number(left), reused=len(one.distinct) - _number(left), utterances=utterances)


def _number(left: Left) -> int:
    return sum(map(len, left.values()))


def encode(
    left: Mapping[Modality, Left],
    config: ExtractionConfig,
    run_tasks: RunTasks,
    *,
    report: Callable[..., None],
) -> None:
    """Encode and write pieces on workers, by modality and key, the slowest modality first."""
    calls: list[Call] = []
    for modality in (m for m in _SLOWEST_FIRST if left.get(m)):
        size = getattr(config.chunk, modality)
        for parts, pieces in left[modality].items():
            chunked = chunks(pieces.values(), size, config.workers)
            calls += [("encode", (modality, chunk, parts)) for chunk in chunked]
    shown: dict[Modality, Progress] = {}
    lost: dict[Modality, Counter[str]] = {}  # by problem
    last = time.monotonic()  # earliest start of the next modality's first chunk
    for chunk in run_tasks(calls):
        name = chunk.modality
        if name not in shown:
            shown[name] = Progress(report, _number(left[name]), digits=2, begun=last, modality=name)
            lost[name] = Counter()
        lost[name].update(chunk.lost)
        shown[name].add(chunk.pieces, lost=dict(lost[name]))
        last = time.monotonic()
