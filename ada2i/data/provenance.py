"""The origin of extracted vectors, as a feature set's manifest records it."""

import json
import re
from collections.abc import Mapping
from typing import TypeAlias

from pydantic import Field

from ada2i import storage
from ada2i.modalities import Modality
from ada2i.records import Recipe, Record

_RESTRICTED = re.compile(r"non-?\s?commercial|not for commercial|research (use )?only|\bNC\b", re.IGNORECASE)

Settings: TypeAlias = dict[str, str | int | float | bool]


_FLOAT32 = "float32"


class EncoderInfo(Record):
    """Everything that decides an encoder's vectors, and their terms of use."""

    name: str
    modality: Modality
    width: int
    licence: str
    source: str  # origin, as text for people
    weights_digest: str  # SHA-256 of its weights and their configuration, or of a substitute
    revision: int = 1  # of this package's own computation around them
    settings: Settings = Field(default_factory=dict)
    precision: str = Field(_FLOAT32, exclude_if=lambda precision: precision == _FLOAT32)  # of its products

    def digest(self) -> str:
        """Return a SHA-256 over every field that can change a vector by more than rounding."""
        decisive = self.model_dump(mode="json", exclude={"licence", "source", "precision"})
        return storage.digest(json.dumps(decisive, sort_keys=True).encode())

    def folder(self) -> str:
        """Return the name of the folder of its vectors: those of another precision are others."""
        return self.digest() if self.precision == _FLOAT32 else f"{self.digest()}-{self.precision}"


class ModalityOrigin(Record):
    """The vectors that one encoder made of a corpus; counts are of utterances."""

    encoder: EncoderInfo
    items: int  # with text or a clip to encode
    vectors: int
    missing: dict[str, int]  # by reason: with content, but no vector
    flagged: dict[str, int]  # by flag: with a vector
    measures: dict[str, float]  # means over the vectors


class Origin(Record):
    """How a feature set was extracted; ``provenance.parquet`` next to it records it for each row."""

    kind: str  # of the reader
    location: str  # of the corpus, without credentials
    licence: str  # of the corpus, as text for people
    media: Settings  # settings that, together with the files, decide samples and pixels
    modalities: dict[Modality, ModalityOrigin]
    notes: tuple[str, ...]  # the reader's notes on the corpus
    problems: int  # utterances that lack something they should have; ``problems.parquet`` lists them
    first_problems: tuple[str, ...]
    recipe: Recipe | None = None  # None in sets older than this field

    @property
    def licences(self) -> dict[str, str]:
        """The licence of the corpus, and each modality's encoder with its licence."""
        found = {"corpus": self.licence}
        return found | {m: f"{one.encoder.name}, {one.encoder.licence}" for m, one in self.modalities.items()}


def licence_warning(licences: Mapping[str, str]) -> str:
    """Return a sentence about the licences that forbid some uses; empty if none does.

    Args:
        licences: As ``Origin.licences``.
    """
    found = [f"{of}: {licence}" for of, licence in licences.items() if _RESTRICTED.search(licence)]
    return f"Restricted use, also of models trained on such vectors. {'; '.join(found)}." if found else ""
