"""The interface of encoders, and their result.

Your own encoder is a class with ``info`` and ``encode`` in a module that Python can import; name it
``package.module:Class`` in place of a built-in encoder. Its constructor's keyword arguments are its settings.

Shape letters in this file:
    D width of the vector
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from ada2i import storage
from ada2i.data.provenance import EncoderInfo

Item = TypeVar("Item")  # str, Waveform or Frames
ItemIn_contra = TypeVar("ItemIn_contra", contravariant=True)

NOT_FINITE = "not-finite"  # a flag: the encoder returned NaN or infinity, so the modality is missing


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """The result of encoding one utterance in one modality.

    Attributes:
        vector: ``(D,)`` float32, finite; None if the modality is missing.
        flags: Remarks on the vector, or the reason why it is missing, as words that can be counted.
        measures: Numbers to average over a corpus, such as the share of frames with a face.
    """

    vector: npt.NDArray[np.float32] | None
    flags: tuple[str, ...] = ()
    measures: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable
class Encoder(Protocol[ItemIn_contra]):
    """Maps utterances to vectors, one modality at a time."""

    @property
    def info(self) -> EncoderInfo:
        """The facts about this encoder."""

    def encode(self, items: Sequence[ItemIn_contra | None]) -> list[Encoded]:
        """Encode utterances, independently of one another.

        Args:
            items: Texts (``str``), ``Waveform`` or ``Frames``, depending on the encoder's modality; None if missing.

        Returns:
            One result for each item, in the same order.
        """


def joint_info(infos: Sequence[EncoderInfo]) -> EncoderInfo:
    """Return the facts about encoders of one modality whose vectors are concatenated, in this order."""
    if len(infos) == 1:
        return infos[0]
    return EncoderInfo(
        name="+".join(info.name for info in infos),
        modality=infos[0].modality,
        width=sum(info.width for info in infos),
        licence="; ".join(f"{info.name}: {info.licence}" for info in infos),
        source="; ".join(f"{info.name}: {info.source}" for info in infos),
        weights_digest=storage.digest(" ".join(info.digest() for info in infos).encode()),
        settings={f"{info.name}.{name}": value for info in infos for name, value in info.settings.items()},
    )


def encode_each(items: Sequence[Item | None], encode: Callable[[Item], Encoded]) -> list[Encoded]:
    """Encode items one by one; missing ones stay missing."""
    return [Encoded(None) if item is None else encode(item) for item in items]


def finite(
    vector: npt.NDArray[np.floating], flags: tuple[str, ...] = (), measures: Mapping[str, float] | None = None
) -> Encoded:
    """Return the vector as float32, or no vector if it holds NaN or infinity."""
    if not np.isfinite(vector).all():
        return Encoded(None, (*flags, NOT_FINITE), measures or {})
    return Encoded(vector.astype(np.float32), flags, measures or {})
