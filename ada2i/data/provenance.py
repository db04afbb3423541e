"""Where extracted vectors come from, as a feature set's manifest records it."""

import json
from typing import TypeAlias

from pydantic import Field

from ada2i import storage
from ada2i.modalities import Modality
from ada2i.records import Recipe, Record

Settings: TypeAlias = dict[str, str | int | float | bool]


class EncoderInfo(Record):
    """Everything that decides an encoder's vectors, and under what terms they may be used."""

    name: str
    modality: Modality
    width: int
    licence: str
    source: str  # where it comes from, for people
    weights_digest: str  # SHA-256 of its weights and their configuration, or of what stands for them
    revision: int = 1  # of this package's own arithmetic around them
    settings: Settings = Field(default_factory=dict)

    def digest(self) -> str:
        """Return a SHA-256 that changes with every field that can change a vector."""
        decisive = self.model_dump(mode="json", exclude={"licence", "source"})
        return storage.digest(json.dumps(decisive, sort_keys=True).encode())


class ModalityOrigin(Record):
    """What one encoder made of a corpus; counts are of utterances."""

    encoder: EncoderInfo
    items: int  # with something to encode: words, a clip
    vectors: int
    missing: dict[str, int]  # by reason: with something to encode, but no vector
    flagged: dict[str, int]  # by flag: with a vector
    measures: dict[str, float]  # means over the vectors


class Origin(Record):
    """How a feature set was extracted; ``provenance.parquet`` next to it records it for each row."""

    kind: str  # which reader
    location: str  # of the corpus, without credentials
    licence: str  # of the corpus, for people
    media: Settings  # what decides samples and pixels, apart from the files
    modalities: dict[Modality, ModalityOrigin]
    notes: tuple[str, ...]  # of the corpus, by its reader
    problems: int  # utterances that lack something they should have; ``problems.parquet`` lists them
    first_problems: tuple[str, ...]
    recipe: Recipe | None = None  # none in sets older than it
