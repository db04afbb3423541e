"""Encoders that take no time, and count what they encode."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ada2i.data.provenance import EncoderInfo
from ada2i.extraction.encoders.base import Encoded, encode_each, finite
from ada2i.extraction.media import Frames, Waveform
from ada2i.modalities import Modality

CALLS: list[str] = []  # the modality of each thing that was encoded, in this process


class _Own:
    modality: ClassVar[Modality]

    def __init__(self, *, scale: float = 1.0) -> None:
        self.scale = scale
        self.info = EncoderInfo(
            name=f"own-{self.modality}",
            modality=self.modality,
            width=2,
            licence="Apache-2.0",
            source="a test",
            weights_digest="none",
            settings={"scale": scale},
        )

    def encode(self, items: Sequence[Any]) -> list[Encoded]:
        return encode_each(items, self._one)

    def _one(self, item: Any) -> Encoded:
        CALLS.append(self.modality)
        vector = np.array(self.numbers(item)) * self.scale
        return finite(vector, getattr(item, "flags", ()), {"first": float(vector[0])})

    def numbers(self, item: Any) -> list[float]:
        raise NotImplementedError


class Text(_Own):
    modality: ClassVar[Modality] = "text"

    def numbers(self, item: str) -> list[float]:
        return [len(item), np.nan if item == "nonsense" else item.count(" ")]


class Words(Text):
    """Another encoder of texts."""

    def __init__(self, *, power: int = 1) -> None:
        super().__init__()
        self.power = power
        update = {"name": "own-words", "width": 1, "licence": "MIT", "settings": {"power": power}}
        self.info = self.info.model_copy(update=update)

    def numbers(self, item: str) -> list[float]:
        return [float(len(item.split()) ** self.power)]


class Audio(_Own):
    modality: ClassVar[Modality] = "audio"

    def numbers(self, item: Waveform) -> list[float]:
        return [item.samples.size, float(np.abs(item.samples).max())]


class Visual(_Own):
    modality: ClassVar[Modality] = "visual"

    def numbers(self, item: Frames) -> list[float]:
        return [len(item.pixels), float(item.pixels.mean())]


class Brightness(Visual):
    """Another encoder of pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.info = self.info.model_copy(update={"name": "own-brightness", "width": 1})

    def numbers(self, item: Frames) -> list[float]:
        return [float(item.pixels.mean())]
