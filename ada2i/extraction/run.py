"""One extraction from request to feature set, whoever does its calls: plan, encode what is not there yet, publish."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ada2i import storage
from ada2i.data.provenance import EncoderInfo
from ada2i.extraction.cache import Files, Vectors
from ada2i.extraction.config import ExtractionConfig
from ada2i.extraction.corpora.readers import read_corpus
from ada2i.extraction.plan import Piece, Plan, chunks, files_of, item_of, plan
from ada2i.extraction.publish import Source, publish, publish_table
from ada2i.extraction.report import gather
from ada2i.extraction.request import RESULT, ExtractionRequest, ExtractionResult, Work
from ada2i.extraction.utterance import Corpus
from ada2i.extraction.work import Done
from ada2i.jobs.crew import Call
from ada2i.modalities import Modality

_FILES = 64  # digested between two messages
_SLOWEST_FIRST: tuple[Modality, ...] = ("visual", "audio", "text")  # so that no worker is left with a long chunk
_TELL_SECONDS = 0.5  # between two messages about one modality


class Crew(Protocol):
    """Workers that do calls."""

    def each(self, calls: Iterable[Call]) -> Iterator[Any]:
        """Call methods on whichever worker is idle; yield what they return, in the order in which they end."""

    def tell(self, kind: str, **facts: Any) -> None:
        """Tell followers how it goes."""


def extract(uri: str, request: ExtractionRequest, crew: Crew) -> ExtractionResult:
    """Extract what a request asks for, from wherever an earlier attempt ended.

    Args:
        uri: The extraction's folder.
        request: What it asks for.
        crew: Who encodes.

    Raises:
        DataError: The corpus cannot become a feature set, or too many clips are unreadable.
    """
    begun = time.monotonic()
    corpus, config = read_corpus(request.kind, request.location), request.config
    held = [m for m in config.encoders if any(item_of(item, m) is not None for item in corpus.utterances)]
    encoders = _describe(held, crew)
    plans = _plan(request, corpus, held, crew)
    stores = {m: Vectors(request.root, info.digest(), info.width) for m, info in encoders.items()}
    found = {one.modality: stores[one.modality].read(one.distinct.keys()) for one in plans}
    left = {one.modality: _without(one, found[one.modality]) for one in plans}
    work = {one.modality: _work(one, left[one.modality]) for one in plans}
    crew.tell("planned", work={modality: each.model_dump() for modality, each in work.items()})
    encode(left, config, crew)
    for modality, pieces in left.items():
        found[modality] |= stores[modality].read(pieces.keys())
    extracted = [gather(one, encoders[one.modality], found[one.modality]) for one in plans]
    source = Source(corpus, request.kind)
    if request.labelled:
        features = publish(request.root, source, extracted, config, log=uri)
    else:
        features = publish_table(source, extracted, config, log=uri)
    problems = sum(one is not None and one.vector is None for each in extracted for one in each.outcomes)
    result = ExtractionResult(
        features=features, work=work, problems=problems, seconds=round(time.monotonic() - begun, 2)
    )
    # Last: a crash before leaves a complete feature set, which the next attempt finds and does not write again.
    storage.put(storage.join(uri, RESULT), result.stored())
    return result


def _describe(modalities: Sequence[Modality], crew: Crew) -> dict[Modality, EncoderInfo]:
    infos = {info.modality: info for info in crew.each([("describe", (modality,)) for modality in modalities])}
    return {modality: infos[modality] for modality in modalities}


def _plan(request: ExtractionRequest, corpus: Corpus, modalities: Sequence[Modality], crew: Crew) -> list[Plan]:
    files = files_of(corpus, modalities)
    stamps = storage.source_stamps(files)  # before the files are read: one that is written meanwhile is read again
    index = Files(request.root)
    digests = index.read(stamps)
    unknown = [file for file in files if file not in digests]
    new: dict[str, str] = {}
    for part in crew.each([("digests", (unknown[n : n + _FILES],)) for n in range(0, len(unknown), _FILES)]):
        new |= part
    index.write(new, stamps)
    return [plan(corpus, modality, digests | new, request.config.media) for modality in modalities]


def _without(one: Plan, found: Mapping[str, Any]) -> dict[str, Piece]:
    return {key: piece for key, piece in one.distinct.items() if key not in found}


def _work(one: Plan, left: Mapping[str, Piece]) -> Work:
    utterances = sum(piece is not None for piece in one.pieces)
    return Work(encoded=len(left), reused=len(one.distinct) - len(left), utterances=utterances)


def encode(left: Mapping[Modality, Mapping[str, Piece]], config: ExtractionConfig, crew: Crew) -> None:
    """Have pieces encoded and written, by modality and key, the slowest first."""
    calls: list[Call] = []
    for modality in (m for m in _SLOWEST_FIRST if left.get(m)):
        size = getattr(config.chunk, modality)
        calls += [("encode", (modality, part)) for part in chunks(left[modality].values(), size, config.workers)]
    shown: dict[Modality, _Progress] = {}
    last = time.monotonic()
    for chunk in crew.each(calls):
        if chunk.modality not in shown:
            shown[chunk.modality] = _Progress(chunk.modality, len(left[chunk.modality]), crew.tell, begun=last)
        shown[chunk.modality].add(chunk)
        last = time.monotonic()


@dataclass
class _Progress:
    """How far one modality is."""

    modality: Modality
    total: int
    tell: Callable[..., None]
    begun: float  # when its first chunk may have gone out
    done: int = 0
    lost: Counter[str] = field(default_factory=Counter)  # by problem
    told: float = 0.0

    def add(self, chunk: Done) -> None:
        """Count vectors, and tell now and then."""
        self.done += chunk.pieces
        self.lost.update(chunk.lost)
        now = time.monotonic()
        if self.done < self.total and now - self.told < _TELL_SECONDS:
            return
        self.told = now
        rate = self.done / max(now - self.begun, 1e-3)
        left = round((self.total - self.done) / rate)
        numbers = {"done": self.done, "total": self.total, "per_second": round(rate, 2), "seconds_left": left}
        self.tell("progress", modality=self.modality, **numbers, lost=dict(self.lost))
