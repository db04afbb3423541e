"""Turns of a request to vectors, by the encoders and media settings of the features that a version was trained on."""

import asyncio
import io
import json
import math
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ada2i.errors import DataError
from ada2i.extraction import media
from ada2i.extraction.config import ExtractionConfig
from ada2i.extraction.encoders import registry
from ada2i.extraction.encoders.text import TextEncoder
from ada2i.extraction.outcome import Outcome, joint_outcome, outcome
from ada2i.inference.predict import Floats
from ada2i.jobs.fanout import ONE_THREAD
from ada2i.modalities import Modality
from ada2i.serving import clip_child
from ada2i.serving.limits import Limits

Decoded: TypeAlias = Mapping[str, npt.NDArray[Any]]
"""By modality, the samples ``(S,)`` or pixels ``(F, Y, X, 3)`` of a clip."""

_TOO_LARGE = 413


class Encoders:
    """The loaded encoders of a version's features.

    Attributes:
        config: Their names and settings, and those of media.
    """

    def __init__(self, config: ExtractionConfig) -> None:
        self.config = config
        self._loaded = {
            modality: [
                registry.load(spec, modality, settings=settings)
                for spec, settings in registry.parts_with_settings(choice.spec, choice.settings)
            ]
            for modality, choice in config.encoders.items()
        }
        for encoder in self._loaded.get("text", ()):
            if isinstance(encoder, TextEncoder):
                encoder.fills = False  # a live turn has one text

    @property
    def of_clips(self) -> tuple[Modality, ...]:
        """The modalities that are extracted from a clip."""
        return tuple(modality for modality in self._loaded if modality != "text")

    @property
    def reads_text(self) -> bool:
        """Whether texts are encoded."""
        return "text" in self._loaded

    def texts(self, texts: Sequence[str]) -> list[Floats | None]:
        """Return the vector of each text; None if its encoder makes none of it."""
        parts = [map(outcome, encoder.encode(texts)) for encoder in self._loaded["text"]]
        return [joint_outcome(each).vector for each in zip(*parts, strict=True)] if texts else []

    def clip(self, decoded: Decoded, place: str) -> dict[Modality, Floats]:
        """Return the vectors of a decoded clip.

        Raises:
            DataError: An encoder makes no vector of it.
        """
        found: dict[Modality, Floats] = {}
        for modality in self.of_clips:
            array = decoded[modality]
            item = media.Waveform(array) if modality == "audio" else media.Frames(array)
            one = joint_outcome([outcome(encoder.encode([item])[0]) for encoder in self._loaded[modality]])
            found[modality] = _vector(one, modality, place)
        return found


def _vector(one: Outcome, modality: Modality, place: str) -> Floats:
    if one.vector is None:
        raise DataError(
            f"`{place}` must be a clip that the {modality} encoder can use, but it found: {one.problem}. {one.message}",
            field=place,
        )
    return one.vector


async def decode(clip: bytes, encoders: Encoders, limits: Limits, place: str) -> Decoded:
    """Decode a clip in a process of its own, which has limits of memory and time.

    Raises:
        DataError: The clip is too long, cut, silent or damaged, or decoding it takes too much memory or time.
    """
    settings = encoders.config.media
    longest = min(settings.limit_s, limits.clip_seconds)
    arguments = (
        settings.model_copy(update={"limit_s": longest}).model_dump_json(),
        ",".join(encoders.of_clips),
        str(limits.clip_memory),
        str(math.ceil(limits.seconds)),
    )
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", clip_child.__name__, *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **ONE_THREAD},
    )
    try:
        async with asyncio.timeout(limits.seconds):
            out, said = await child.communicate(clip)
    except TimeoutError as problem:
        raise _refused(place, f"decoding it takes longer than {limits.seconds:g} s") from problem
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode == 0:
        return dict(np.load(io.BytesIO(out), allow_pickle=False))
    raise _error(child.returncode or 0, said, place)


def _error(code: int, said: bytes, place: str) -> DataError:
    """Return the error for a clip that the child could not decode."""
    if code == clip_child.REFUSED:
        found = json.loads(said.splitlines()[-1])
        status = {"status": _TOO_LARGE} if found["code"] == media.OVER_LONG else {}
        return DataError(f"`{place}`: {found['message']}", field=place, code=found["code"], **status)
    ended = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return _refused(place, f"the process that decoded it ended with {ended}, at its limit of memory or time")


def _refused(place: str, found: str) -> DataError:
    return DataError(
        f"`{place}` must be a clip that is decoded within the limits of memory and time, but {found}. Send a shorter "
        "one, or one of a smaller picture.",
        field=place,
        status=_TOO_LARGE,
    )
