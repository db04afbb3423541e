"""The findings of an extraction: counts, a list of all problems, and whether there are too many.

The policy is described in ``docs/extraction.md``.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ada2i import storage
from ada2i.data.provenance import EncoderInfo, ModalityOrigin
from ada2i.errors import DataError
from ada2i.extraction.config import MediaPolicy
from ada2i.extraction.outcome import Outcome
from ada2i.extraction.plan import MISSING, Plan, item_of
from ada2i.extraction.utterance import Clip, Corpus
from ada2i.modalities import Modality

# Problems of clips that should exist and be readable; silence and brevity are properties of speech, not problems.
UNREADABLE = frozenset({MISSING, "unreadable", "no-audio-stream", "no-video-stream", "zero-length"})

_ABSENT = Outcome(None, problem=MISSING, message="The file does not exist.")


@dataclass(frozen=True)
class Extracted:
    """The outcomes of one modality of a corpus.

    Attributes:
        plan: The plan.
        encoder: The encoder's facts.
        outcomes: By utterance of the corpus; None if it has nothing to encode.
    """

    plan: Plan
    encoder: EncoderInfo
    outcomes: tuple[Outcome | None, ...]


@dataclass(frozen=True)
class Problem:
    """Something that an utterance should have, but lacks."""

    place: int  # index in the corpus
    modality: Modality | None  # None if it concerns the whole utterance
    code: str
    message: str


def gather(plan: Plan, encoder: EncoderInfo, outcomes: Mapping[str, Outcome]) -> Extracted:
    """Join a plan with its outcomes.

    Args:
        plan: The plan of one modality.
        encoder: Its encoder.
        outcomes: By key.
    """
    by_place = (None if piece is None else outcomes[piece.key] for piece in plan.pieces)
    found = (_ABSENT if place in plan.missing else one for place, one in enumerate(by_place))
    return Extracted(plan, encoder, tuple(found))


def origin_of(extracted: Extracted) -> ModalityOrigin:
    """Count one modality."""
    items = [one for one in extracted.outcomes if one is not None]
    vectors = [one for one in items if one.vector is not None]
    names = sorted({name for one in vectors for name in one.measures})
    measured = {name: [one.measures[name] for one in vectors if name in one.measures] for name in names}
    return ModalityOrigin(
        encoder=extracted.encoder,
        items=len(items),
        vectors=len(vectors),
        missing=_counted(one.problem for one in items if one.problem),
        flagged=_counted(flag for one in vectors for flag in one.flags),
        measures={name: round(sum(values) / len(values), 6) for name, values in measured.items()},
    )


def _counted(words: Iterator[str]) -> dict[str, int]:
    return dict(sorted(Counter(words).items()))


def problems_of(corpus: Corpus, extracted: Sequence[Extracted]) -> list[Problem]:
    """List what utterances lack, in the corpus's order."""
    noted = [Problem(place, None, note, "") for place, item in enumerate(corpus.utterances) for note in item.notes]
    lost = [
        Problem(place, each.plan.modality, one.problem, one.message)
        for each in extracted
        for place, one in enumerate(each.outcomes)
        if one is not None and one.problem
    ]
    return sorted(noted + lost, key=lambda problem: problem.place)


def problems_table(corpus: Corpus, problems: Sequence[Problem]) -> pa.Table:
    """Return problems as a table that names utterances and files."""
    rows = [
        {
            "split": item.split,
            "dialogue_id": item.dialogue_id,
            "utterance_index": item.utterance_index,
            "utterance_id": item.utterance_id,
            "modality": problem.modality,
            "code": problem.code,
            "file": _file(corpus, problem),
            "message": problem.message,
        }
        for problem in problems
        for item in [corpus.utterances[problem.place]]
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema(_COLUMNS))


KEYS: list["pa.Field[Any]"] = [  # columns that name an utterance
    pa.field("split", pa.string()),
    pa.field("dialogue_id", pa.string()),
    pa.field("utterance_index", pa.int32()),
    pa.field("utterance_id", pa.string()),
]
_COLUMNS: list["pa.Field[Any]"] = [
    *KEYS,
    pa.field("modality", pa.string()),
    pa.field("code", pa.string()),
    pa.field("file", pa.string()),
    pa.field("message", pa.string()),
]


def _file(corpus: Corpus, problem: Problem) -> str | None:
    item = item_of(corpus.utterances[problem.place], problem.modality) if problem.modality else None
    return storage.public(item.uri) if isinstance(item, Clip) else None


def sentence(corpus: Corpus, problem: Problem) -> str:
    """Return a problem as one line."""
    item = corpus.utterances[problem.place]
    where = ", ".join(filter(None, (item.split, item.utterance_id, problem.modality, _file(corpus, problem))))
    return f"{where}: {problem.code}"


def enforce(
    corpus: Corpus, extracted: Sequence[Extracted], problems: Sequence[Problem], policy: MediaPolicy, listed: str
) -> None:
    """Raise if too many media are unreadable to publish features.

    Args:
        corpus: The corpus.
        extracted: The outcomes, by modality.
        problems: All of them.
        policy: The limits.
        listed: URI of the list of all problems, for the message.

    Raises:
        DataError: Too many clips of a modality are unreadable.
    """
    for each in extracted:
        clips = [one for one in each.outcomes if one is not None]
        bad = [one for one in clips if one.problem in UNREADABLE]
        if each.plan.modality == "text" or len(bad) <= policy.unreadable * len(clips):
            continue
        ours = [one for one in problems if one.modality == each.plan.modality and one.code in UNREADABLE]
        named = "\n".join(f"  {sentence(corpus, one)}" for one in ours[: policy.named])
        raise DataError(
            f"At most {policy.unreadable:.1%} of the {each.plan.modality} clips of {corpus.source} may be unreadable "
            f"(`policy.unreadable`), but {len(bad)} of {len(clips)} are. Nothing was published. Correct the files, "
            f"leave the modality out, or raise the limit. All problems: {listed}. The first:\n{named}",
            uri=corpus.source,
        )
