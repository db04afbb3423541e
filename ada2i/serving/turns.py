"""Turns of dialogues: as a request gives them, and as vectors that a model reads.

Shape letters in this file:
    W width of a modality's vectors
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import ConfigDict, Field, FiniteFloat

from ada2i.config import Config
from ada2i.errors import DataError
from ada2i.inference.predict import Floats
from ada2i.modalities import Modality
from ada2i.serving.limits import Limits

Vector = list[FiniteFloat]


class GivenTurn(Config):
    """One turn of a request: either features, or what they are extracted from."""

    model_config = ConfigDict(strict=True)

    speaker: Annotated[str, Field(max_length=200)] | None = Field(None, description="Who speaks, by any name.")
    features: dict[str, Vector | None] | None = Field(
        None, description="By modality, the vector of the version's encoder; null or absent: missing."
    )
    text: str | None = Field(None, description="What is said, for the version's text encoder.")
    clip: str | None = Field(None, description="A media file in base64, for the version's other encoders.")


class GivenDialogue(Config):
    """A request to predict a whole dialogue."""

    turns: Annotated[list[GivenTurn], Field(min_length=1)]


@dataclass(frozen=True, eq=False)
class Turn:
    """A turn whose form was checked.

    Attributes:
        speaker: Who speaks, or None.
        features: By modality, ``(W,)`` float32 as given, or None: missing. None: they must be extracted.
        text: What is said, or None.
        clip: The bytes of a media file, or None.
    """

    speaker: str | None
    features: Mapping[str, Floats | None] | None = None
    text: str | None = None
    clip: bytes | None = None


@dataclass(frozen=True, eq=False)
class Vectors:
    """A turn as a model reads it.

    Attributes:
        speaker: Who speaks, or None.
        features: By modality that the model reads, ``(W,)`` float32, or None: missing.
    """

    speaker: str | None
    features: Mapping[Modality, Floats | None]

    @property
    def nbytes(self) -> int:
        """The memory that it takes, in bytes."""
        return sum(vector.nbytes for vector in self.features.values() if vector is not None)


def checked(given: Sequence[GivenTurn], limits: Limits) -> tuple[Turn, ...]:
    """Return the turns of a request.

    Raises:
        DataError: There are too many turns, or one has a text or clip above its limit, or no content.
    """
    if len(given) > limits.turns:
        raise DataError(
            f"A request must have at most {limits.turns} turns, but has {len(given)}. Send fewer, or use a session.",
            field="turns",
            status=413,
        )
    return tuple(_checked(turn, f"turns.{place}", limits) for place, turn in enumerate(given))


def _checked(turn: GivenTurn, place: str, limits: Limits) -> Turn:
    held = turn.text is not None or turn.clip is not None
    if held == (turn.features is not None):
        raise DataError(
            f"`{place}` must have either `features`, or at least one of `text` and `clip`, but has "
            f"{'both forms' if held else 'neither'}. Send one of the two forms.",
            field=place,
        )
    if turn.text is not None and len(turn.text) > limits.text_chars:
        raise DataError(
            f"`{place}.text` must have at most {limits.text_chars} characters, but has {len(turn.text)}. Send what one "
            "speaker says in one turn.",
            field=f"{place}.text",
            status=413,
        )
    features: dict[str, Floats | None] | None = None
    if turn.features is not None:
        vectors = turn.features.items()
        features = {name: None if vector is None else np.array(vector, np.float32) for name, vector in vectors}
    clip = None if turn.clip is None else _decoded(turn.clip, f"{place}.clip", limits)
    return Turn(turn.speaker, features, turn.text, clip)


def _decoded(clip: str, place: str, limits: Limits) -> bytes:
    try:
        data = base64.b64decode(clip, validate=True)
    except (binascii.Error, ValueError) as problem:
        raise DataError(f"`{place}` must be a media file in base64, but is not. Encode it.", field=place) from problem
    if len(data) > limits.clip_bytes:
        raise DataError(
            f"`{place}` must have at most {limits.clip_bytes} bytes, but has {len(data)}. Send a shorter clip, or one "
            "of a smaller picture.",
            field=place,
            status=413,
        )
    return data


def read_features(
    given: Mapping[str, Floats | None], widths: Mapping[Modality, int], version: str, place: str
) -> dict[Modality, Floats | None]:
    """Return a turn's vectors by modality that a version reads; a modality that is absent is missing.

    Args:
        given: ``(W,)`` by modality, as sent.
        widths: The width of the vectors that the version reads, by modality.
        version: The version's name, for messages.
        place: Where the turn is in the request, for messages.

    Raises:
        DataError: A modality is unknown, or a vector is of another width, or too large for float32.
    """
    for name, vector in given.items():
        field = f"{place}.features.{name[:40]}"
        width = next((width for modality, width in widths.items() if modality == name), None)
        if width is None:
            raise DataError(
                f"`{place}.features` must name modalities that {version} reads, {', '.join(widths)}, but names "
                f"{name[:40]!r}. Leave it out.",
                field=field,
            )
        if vector is not None and not (vector.size == width and np.isfinite(vector).all()):
            found = f"has {vector.size}" if vector.size != width else "has one beyond float32"
            raise DataError(
                f"`{field}` must be {width} numbers, as those that {version} was trained on, but {found}. Extract it "
                "by the same encoder.",
                field=field,
            )
    return {modality: given.get(modality) for modality in widths}
