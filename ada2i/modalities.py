"""The modalities, their order and their letters: the first letters of their names."""

from collections.abc import Mapping
from typing import Literal

Modality = Literal["text", "audio", "visual"]

MODALITIES: tuple[Modality, ...] = ("text", "audio", "visual")
LETTERS: Mapping[str, Modality] = {"t": "text", "a": "audio", "v": "visual"}
