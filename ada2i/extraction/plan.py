"""What to encode, found without opening a sound or a picture: each utterance's content gets a key.

Equal keys mean equal content, equal times, equal settings of the decoder: one vector serves all.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ada2i import storage
from ada2i.extraction.media import MediaSettings
from ada2i.extraction.utterance import Clip, Corpus, Utterance
from ada2i.modalities import Modality

MISSING = "missing"  # a problem: there is no such file


@dataclass(frozen=True, slots=True)
class Piece:
    """One thing to encode.

    Attributes:
        key: Of its content; see above.
        item: Words, or a piece of a file.
        digest: SHA-256 of the words or of the whole file.
    """

    key: str
    item: str | Clip
    digest: str


@dataclass(frozen=True)
class Plan:
    """All of one modality.

    Attributes:
        modality: Which.
        pieces: By utterance of the corpus, what to encode; None if it has nothing, or its file is missing.
        missing: Places of utterances in the corpus whose file does not exist.
    """

    modality: Modality
    pieces: tuple[Piece | None, ...]
    missing: frozenset[int]

    @property
    def distinct(self) -> dict[str, Piece]:
        """The pieces by key; of equal ones, the first."""
        found: dict[str, Piece] = {}
        for piece in self.pieces:
            if piece is not None:
                found.setdefault(piece.key, piece)
        return found


def item_of(utterance: Utterance, modality: Modality) -> str | Clip | None:
    """Return what to encode of an utterance."""
    items: Mapping[Modality, str | Clip | None] = {
        "text": utterance.text,
        "audio": utterance.audio,
        "visual": utterance.video,
    }
    return items[modality]


def files_of(corpus: Corpus, modalities: Iterable[Modality]) -> list[str]:
    """Return the files of a corpus that hold something to encode, each once."""
    items = (item_of(utterance, modality) for modality in modalities for utterance in corpus.utterances)
    return sorted({item.uri for item in items if isinstance(item, Clip)})


def plan(corpus: Corpus, modality: Modality, digests: Mapping[str, str], media: MediaSettings) -> Plan:
    """Plan one modality.

    Args:
        corpus: Whose.
        modality: Which.
        digests: By file that exists, its SHA-256.
        media: What decides samples and pixels besides the file.
    """
    pieces: list[Piece | None] = []
    missing = set()
    for place, utterance in enumerate(corpus.utterances):
        item = item_of(utterance, modality)
        if isinstance(item, Clip) and item.uri not in digests:
            missing.add(place)
            item = None
        pieces.append(None if item is None else _piece(modality, item, digests, media))
    return Plan(modality, tuple(pieces), frozenset(missing))


def _piece(modality: Modality, item: str | Clip, digests: Mapping[str, str], media: MediaSettings) -> Piece:
    if isinstance(item, str):
        digest = storage.digest(item.encode())
        return Piece(digest, item, digest)
    digest = digests[item.uri]
    facts: dict[str, Any] = {"file": digest, "start": item.start, "end": item.end}
    facts |= {"revision": media.revision, "limit_s": media.limit_s}
    if modality == "visual":  # what decides no sample must not make sounds be encoded again
        facts |= {"crop": item.crop, **media.model_dump(mode="json")}
    return Piece(storage.digest(json.dumps(facts, sort_keys=True).encode()), item, digest)


def chunks(pieces: Iterable[Piece], size: int, workers: int) -> list[list[Piece]]:
    """Cut pieces into chunks for workers: the longest texts first, and pieces of one file side by side.

    Args:
        pieces: In any order.
        size: Of a chunk at most; less where every worker would not get some.
        workers: How many there are.
    """
    ordered = sorted(pieces, key=_order)
    size = max(1, min(size, -(-len(ordered) // (2 * workers))))
    return [ordered[first : first + size] for first in range(0, len(ordered), size)]


def _order(piece: Piece) -> tuple[float, str, float, str]:
    if isinstance(piece.item, str):
        return -len(piece.item), "", 0.0, piece.key
    return 0.0, piece.item.uri, piece.item.start or 0.0, piece.key


def inputs_digest(corpus: Corpus, plans: Sequence[Plan], encoders: Mapping[Modality, str]) -> str:
    """Return the SHA-256 of all that was encoded and of what decided how, wherever the corpus lies.

    Args:
        corpus: Whose.
        plans: By modality that is encoded.
        encoders: Their encoders' digests.
    """
    names = [(item.split, item.dialogue_id, item.utterance_index) for item in corpus.utterances]
    keys = {one.modality: [piece.key if piece else None for piece in one.pieces] for one in plans}
    return storage.digest(json.dumps([names, keys, dict(encoders)], sort_keys=True).encode())
