"""Clips are decoded in a process of their own, within limits."""

import asyncio
from typing import Any

import numpy as np
import pytest

from ada2i.errors import DataError
from ada2i.extraction import media
from ada2i.extraction.config import ExtractionConfig, resolve
from ada2i.serving.encoding import Encoders, decode
from ada2i.serving.limits import Limits
from tests.unit.extraction.talks import film, tone

pytest.importorskip("av")


@pytest.fixture(scope="module")
def encoders() -> Encoders:
    config: ExtractionConfig = resolve({"text": "none", "audio": "prosody", "visual": "none"}, {})
    return Encoders(config)


def decoded(clip: bytes, encoders: Encoders, **limits: Any) -> Any:
    return asyncio.run(decode(clip, encoders, Limits(**limits), "turns.0.clip"))


def test_samples_are_those_of_extraction(encoders: Encoders) -> None:
    clip = tone(0.5, 200)
    assert np.array_equal(decoded(clip, encoders)["audio"], media.read_audio(clip).samples)


@pytest.mark.parametrize(
    ("clip", "limits", "message", "status"),
    [
        (tone(1.0, 200), {"clip_seconds": 0.5}, r"`turns\.0\.clip`: A clip must last at most 0\.5 s", 413),
        (tone(1.0, 200), {"clip_memory": 1 << 20}, r"within the limits of memory and time, but", 413),
        (tone(1.0, 200), {"seconds": 0.001}, r"decoding it takes longer than 0\.001 s", 413),
        (tone(1.0, 200)[:9000], {}, r"must be complete, but ends before its declared end", None),
        (tone(1.0, 200, level=0.0), {}, r"Sound must reach", None),
        (b"", {}, r"must have content, but is empty", None),
        (b"no media at all", {}, r"must hold sound that FFmpeg decodes", None),
        (film(1), {}, r"must hold a stream of type audio, but holds: video", None),
    ],
)
def test_clips_that_cannot_be_used_are_refused(
    encoders: Encoders, clip: bytes, limits: Any, message: str, status: int | None
) -> None:
    with pytest.raises(DataError, match=message) as refused:
        decoded(clip, encoders, **limits)
    assert refused.value.context.get("status") == status
    assert refused.value.context["field"] == "turns.0.clip"
