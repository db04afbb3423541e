"""Finds the items to encode without opening a sound or a picture: each utterance's content gets a key.

Equal keys mean equal content, times and decoder settings: one vector serves all.
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
    """One item to encode.

    Attributes:
        key: Key of its content; see above.
        item: A text, or a piece of a media file.
        digest: SHA-256 of the text or of the whole file.
    """

    key: str
    item: str | Clip
    digest: str


@dataclass(frozen=True)
class Plan:
    """The plan of one modality.

    Attributes:
        modality: The modality.
        pieces: By utterance of the corpus, what to encode; None if it has no such content, or its file is missing.
        missing: Indices of utterances in the corpus whose file does not exist.
    """

    modality: Modality
    pieces: tuple[Piece | None, ...]
    missing: frozenset[int]

    @property
    def distinct(self) -> dict[str, Piece]:
        """The pieces by key; of equal pieces, the first."""
        found: dict[str, Piece] = {}
        for piece in self.pieces:
            if piece is not None:
                found.setdefault(piece.key, piece)
        return found


def item_of(utterance: Utterance, modality: Modality) -> str | Clip | None:
    """Return an utterance's content in a modality."""
    items: Mapping[Modality, str | Clip | None] = {
        "text": utterance.text,
        "audio": utterance.audio,
        "visual": utterance.video,
    }
    return items[modality]


def files_of(corpus: Corpus, modalities: Iterable[Modality]) -> list[str]:
    """Return the files of a corpus that have something to encode, each once."""
    items = (item_of(utterance, modality) for modality in modalities for utterance in corpus.utterances)
    return sorted({item.uri for item in items if isinstance(item, Clip)})


def plan(corpus: Corpus, modality: Modality, digests: Mapping[str, str], media: MediaSettings) -> Plan:
    """Plan one modality.

    Args:
        corpus: The corpus.
        modality: The modality.
        digests: SHA-256 of every file that exists.
        media: The settings that, together with the file, decide samples and pixels.
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
    if modality == "visual":  # settings of pictures must not cause sounds to be encoded again
        facts |= {"crop": item.crop, **media.model_dump(mode="json")}
    return Piece(storage.digest(json.dumps(facts, sort_keys=True).encode()), item, digest)


def chunks(pieces: Iterable[Piece], size: int, workers: int) -> list[list[Piece]]:
    """Cut pieces into chunks for workers: the longest texts first, and pieces of one file together.

    Args:
        pieces: In any order.
        size: Maximum size of a chunk; smaller if some worker would get none.
        workers: Number of workers.
    """
    ordered = sorted(pieces, key=_order)
    size = max(1, min(size, -(-len(ordered) // (2 * workers))))
    return [ordered[first : first + size] for first in range(0, len(ordered), size)]


def _order(piece: Piece) -> tuple[float, str, float, str]:
    if isinstance(piece.item, str):
        return -len(piece.item), "", 0.0, piece.key
    return 0.0, piece.item.uri, piece.item.start or 0.0, piece.key


def inputs_digest(corpus: Corpus, plans: Sequence[Plan], encoders: Mapping[Modality, str]) -> str:
    """Return a SHA-256 over all encoded content and its settings, independent of the corpus's location.

    Args:
        corpus: The corpus.
        plans: By encoded modality.
        encoders: Digests of their encoders.
    """
    names = [(item.split, item.dialogue_id, item.utterance_index) for item in corpus.utterances]
    keys = {one.modality: [piece.key if piece else None for piece in one.pieces] for one in plans}
    return storage.digest(json.dumps([names, keys, dict(encoders)], sort_keys=True).encode())
