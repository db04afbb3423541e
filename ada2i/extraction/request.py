"""From a spec to an extraction that can start: all early checks are here."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from ada2i import storage
from ada2i.config import PlaceConfig
from ada2i.data.manifest import require_modalities
from ada2i.errors import ConfigError, DataError
from ada2i.extraction.config import ExtractionConfig, resolve
from ada2i.extraction.corpora.demo import write_demo_media
from ada2i.extraction.corpora.readers import CORPORA, read_corpus
from ada2i.extraction.plan import item_of
from ada2i.extraction.publish import check_corpus
from ada2i.extraction.utterance import Corpus
from ada2i.jobs.client import Job
from ada2i.modalities import MODALITIES, Modality
from ada2i.records import Record, RunId
from ada2i.store import Store

JOB = "ada2i.extraction.job:drive"
RESULT = "result.json"  # of a finished extraction
DEMO_MEDIA = "demo-media"
RAW = "corpus:"  # prefix of a raw corpus in `features`: corpus:KIND:LOCATION
_FOR_TRAINING = "Choose others with `--modalities`."
_FOR_PREDICTION = "Add what is missing, or predict with a model that does not need it."
_DEMO_SETTINGS: dict[str, Any] = {"media.frames_per_second": 2.0}  # drawn faces hardly move


class ExtractSpec(Record):
    """An extraction as the caller describes it, before anything is resolved."""

    kind: str  # of the reader
    location: str  # of the corpus
    encoders: dict[Modality, str | None] = Field(default_factory=dict)  # None: the default
    overrides: dict[str, Any] = Field(default_factory=dict)
    needs: tuple[Modality, ...] = ()  # modalities that the corpus must hold
    labelled: bool = True  # false: it will be predicted, so labels and splits may be absent
    dataset: str | None = None  # name of the set; None: the corpus's
    local: bool = False  # extract in the calling process, without Ray


class ExtractionRequest(Record):
    """The request of a job; its only input besides the corpus and cached vectors."""

    schema_version: Literal[1] = 1
    run_id: RunId
    root: str
    kind: str
    location: str
    config: ExtractionConfig
    labelled: bool = True  # false: the result is a table, not a feature set
    dataset: str | None = None  # name of the set; None: the corpus's

    def corpus(self) -> Corpus:
        """Read its corpus, without opening any sound or picture."""
        corpus = read_corpus(self.kind, self.location)
        return corpus if self.dataset is None else replace(corpus, name=self.dataset)


class Work(Record):
    """The work of an extraction in one modality; counts are of different contents."""

    encoded: int
    reused: int  # encoded before, by this extraction or another
    utterances: int  # with something to encode


class ExtractionResult(Record):
    """The result of an extraction."""

    schema_version: Literal[1] = 1
    features: str  # URI of the feature set, or of the table
    work: dict[Modality, Work]  # of the last attempt
    problems: int  # texts and clips that gave no vector
    seconds: float  # of the last attempt, from its start


def parse(features: str) -> tuple[str, str] | None:
    """Return the kind and location of the raw corpus that ``features`` names, or None if it names something else.

    Raises:
        DataError: It begins like the name of a raw corpus, but is not one.
    """
    if features == DEMO_MEDIA:
        return DEMO_MEDIA, ""
    if not features.startswith(RAW):
        return None
    kind, _, location = features.removeprefix(RAW).partition(":")
    if kind not in CORPORA:  # your own reader, package.module:function
        function, _, location = location.partition(":")
        kind = f"{kind}:{function}"
    if not location:
        raise DataError(
            f"A raw corpus must be named corpus:KIND:LOCATION with a kind of {', '.join(CORPORA)}, but is "
            f"{features!r}. Write for example corpus:meld:data/MELD.Raw.",
            field="features",
        )
    return kind, location


def check(kind: str, location: str, *, needs: Sequence[Modality] = ()) -> None:
    """Check that a corpus can become a feature set, as far as possible before media are opened.

    Args:
        kind: The reader's kind.
        location: The corpus's location.
        needs: Modalities that the corpus must hold.

    Raises:
        DataError: There is no such corpus, it cannot become a feature set, or it lacks a needed modality.
    """
    if kind != DEMO_MEDIA:
        corpus = read_corpus(kind, location)
        check_corpus(corpus)
        _check_modalities(corpus, needs, _FOR_TRAINING)


def is_done(uri: str) -> bool:
    """Return whether an extraction has ended."""
    return storage.exists(storage.join(uri, RESULT))


def prepare(spec: ExtractSpec, *, root: str, run_id: str) -> Job:
    """Check everything possible before media are opened, write the request, and return the extraction's job.

    A repeated call with the same run id and spec is harmless: it resumes.

    Raises:
        ConfigError: An encoder, field or value is wrong, a package is missing, or the run was started with others.
        DataError: There is no such corpus, or it cannot become a feature set.
        AccessError: The storage may not be written.
    """
    config = resolve(spec.encoders, (_DEMO_SETTINGS if spec.kind == DEMO_MEDIA else {}) | spec.overrides)
    store = Store.open(root).writable()
    root = store.root
    kind, location = _placed(spec, root)
    request = ExtractionRequest(
        run_id=run_id,
        root=root,
        kind=kind,
        location=location,
        config=config,
        labelled=spec.labelled,
        dataset=spec.dataset,
    )
    corpus = request.corpus()
    check_corpus(corpus, labelled=spec.labelled, gate_share=config.gate_share)
    _check_modalities(corpus, spec.needs, _FOR_TRAINING if spec.labelled else _FOR_PREDICTION)
    uri = store.extraction(run_id)
    place, data = storage.join(uri, "request.json"), request.stored()
    if not storage.put_if_absent(place, data):
        if not _same(ExtractionRequest.load(place), request):
            raise ConfigError(
                f"Extraction {run_id} must be resumed with the corpus and config that it was started with, but these "
                "differ. Repeat the first command, or start a new one."
            )
        storage.put(place, data)  # other numbers of workers, chunk sizes or limits
    return Job(JOB, uri, storage.digest(data))


def _check_modalities(corpus: Corpus, needed: Iterable[Modality], advice: str) -> None:
    """Check that some utterance has content in each needed modality.

    Raises:
        DataError: A modality is missing everywhere.
    """
    held = [m for m in MODALITIES if any(item_of(utterance, m) is not None for utterance in corpus.utterances)]
    require_modalities(corpus.source, held=held, needs=needed, advice=advice)


def _placed(spec: ExtractSpec, root: str) -> tuple[str, str]:
    """Return the reader's kind and the corpus's absolute location; write the demo's media first."""
    if spec.kind == DEMO_MEDIA:
        place = storage.join(root, "corpora", DEMO_MEDIA)
        return "folder", write_demo_media(place)
    storage.check(spec.location)
    if storage.public(spec.location) != spec.location:
        raise DataError(
            f"The location of a corpus must carry no credentials, because it is stored, but "
            f"{storage.public(spec.location)} has some. Set them in the environment of the workers.",
            field="location",
        )
    return spec.kind, _absolute(spec.location)


def is_of(request: ExtractionRequest, kind: str, location: str, root: str) -> bool:
    """Return whether an extraction is of a corpus; see ``parse``."""
    if kind == DEMO_MEDIA:
        return request.location == storage.join(root, "corpora", DEMO_MEDIA)
    return (request.kind, request.location) == (kind, _absolute(location))


def _absolute(location: str) -> str:
    return location if "://" in location else os.path.abspath(os.path.expanduser(location))


def _same(first: ExtractionRequest, now: ExtractionRequest) -> bool:
    def decisive(request: ExtractionRequest) -> Mapping[str, Any]:
        config = request.config.model_dump(exclude={"workers", "chunk", "policy", *PlaceConfig.model_fields})
        return request.model_dump(exclude={"config"}) | config

    return decisive(first) == decisive(now)
