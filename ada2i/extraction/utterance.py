"""The input of feature extraction: utterances of a corpus, each with its text and the locations of its media.

No sound or picture is held here; a corpus of 20,000 utterances takes a few megabytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Half: TypeAlias = Literal["left", "right"]


@dataclass(frozen=True, slots=True)
class Clip:
    """A piece of a media file.

    Attributes:
        uri: The file: any URI that fsspec opens, for ``storage.read_source``.
        start: Seconds from the file's start; None for its start.
        end: Seconds from the file's start; None for its end.
        crop: The half of each picture to use; None for all of it.
    """

    uri: str
    start: float | None = None
    end: float | None = None
    crop: Half | None = None


@dataclass(frozen=True, slots=True)
class Utterance:
    """One turn of one speaker.

    Attributes:
        dialogue_id: Id of the dialogue, unique in its split.
        utterance_index: Index in the dialogue, from 0 and without a gap.
        utterance_id: The corpus's name of the utterance.
        split: ``train``, ``dev`` or ``test``; empty if the corpus has none.
        speaker: The speaker; None if unknown.
        label: The class's name; None without a label: such an utterance is only the context of others.
        text: The transcript, or None.
        audio: The sound, or None.
        video: The pictures, or None.
        notes: Known problems of the utterance, such as ``BROKEN_CLIP``.
        recorded_at: Time of recording in microseconds since 1970, UTC, or None; the newest dialogues become the gate.
    """

    dialogue_id: str
    utterance_index: int
    utterance_id: str
    split: str
    speaker: str | None
    label: str | None
    text: str | None
    audio: Clip | None
    video: Clip | None
    notes: tuple[str, ...] = ()
    recorded_at: int | None = None


BROKEN_CLIP = "known-broken-clip"  # the clip is damaged in the release itself, and is left out
MISSING_CLIP = "missing-clip"  # the corpus lacks a clip that it should have


@dataclass(frozen=True, slots=True)
class Corpus:
    """All utterances of a corpus.

    Attributes:
        name: The dataset's name.
        labels: Class names, by class index.
        source: Where it was read from, without credentials.
        licence: Terms of use, as text for people.
        utterances: Sorted by split, dialogue and index.
        problems: What was left out or is known to be wrong, as sentences for people.
        synthetic: Whether it is synthetic, so that scores on it prove nothing.
        unused: By column of its table that was not read, what it holds.
    """

    name: str
    labels: tuple[str, ...]
    source: str
    licence: str
    utterances: tuple[Utterance, ...]
    problems: tuple[str, ...] = ()
    synthetic: bool = False
    unused: Mapping[str, str] = field(default_factory=dict)
