"""Whisper base: the published weights, from packages that are optional because of their size."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ada2i.extraction.encoders.base import Encoder
from ada2i.extraction.encoders.registry import ENCODERS, load
from ada2i.extraction.media import Waveform, read_audio
from tests.unit.extraction import tiny
from tests.unit.extraction.test_encoders_audio import check_batch_is_single


@pytest.fixture(scope="module")
def whisper() -> Encoder[Any]:
    if missing := next(one for one in ENCODERS if one.name == "whisper-base").missing():
        pytest.skip(f"needs the packages of the extra `whisper`, about 180 MB: {', '.join(missing)}")
    return load("whisper-base", "audio")


def test_whisper_batch_is_single(whisper: Encoder[Any]) -> None:
    assert (whisper.info.name, whisper.info.width, whisper.info.licence) == ("whisper-base", 512, "MIT")
    check_batch_is_single(whisper)


def test_padding_is_left_out_and_windows_count_by_their_length(whisper: Encoder[Any]) -> None:
    first, second = tiny.noise(30).samples, tiny.noise(10, seed=1).samples
    sounds = [np.concatenate([first, second]), first, second, np.concatenate([second, np.zeros_like(second)])]
    whole, a, b, padded = map(tiny.vector, whisper.encode([Waveform(sound, ("over-long",)) for sound in sounds]))
    np.testing.assert_allclose(whole, 0.75 * a + 0.25 * b, atol=1e-4)
    assert np.abs(padded - b).max() > 0.01  # silence that belongs to the sound counts


def test_recordings_of_speech_differ_from_noise(whisper: Encoder[Any], shared_data: Path) -> None:
    sounds = [read_audio(path) for path in sorted((shared_data / "media").glob("*.wav"))]
    vectors = np.stack([tiny.vector(one) for one in whisper.encode([*sounds, tiny.noise(3)])])
    normal = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    alike = normal @ normal.T
    assert alike[:-1, :-1].min() > alike[-1, :-1].max()
