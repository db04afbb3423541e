"""Descriptors are checked on sounds whose numbers are known; openSMILE against published vectors."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest

from ada2i.extraction.encoders import descriptors
from ada2i.extraction.encoders.base import Encoder
from ada2i.extraction.encoders.prosody import functionals
from ada2i.extraction.encoders.registry import load
from ada2i.extraction.media import RATE, Waveform, read_audio
from tests.unit.extraction import tiny

TIME = np.arange(2 * RATE) / RATE


def sine(hertz: float, level: float = 0.3) -> npt.NDArray[np.float64]:
    return level * np.sin(2 * np.pi * hertz * TIME)


def check_batch_is_single(encoder: Encoder[Any]) -> None:
    items = [tiny.noise(0.5), None, tiny.noise(1.3, seed=1), tiny.noise(0.1, seed=2)]
    together = encoder.encode(items)
    assert [one.vector is None for one in together] == [False, True, False, False]
    for item, one in zip(items, together, strict=True):
        (alone,) = encoder.encode([item])
        np.testing.assert_array_equal(np.array(one.vector), np.array(alone.vector))
        assert one.vector is None or one.vector.shape == (encoder.info.width,)


@pytest.mark.parametrize("hertz", [70.0, 120.0, 210.0, 333.0, 490.0])
def test_a_tone_has_its_pitch(hertz: float) -> None:
    found = functionals(sine(hertz))
    assert 27.5 * 2 ** (found["pitch mean"] / 12) == pytest.approx(hertz, rel=0.005)
    assert found["pitch deviation"] < 0.1
    assert found["voiced share"] > 0.98
    assert found["zero-crossings p50"] == pytest.approx(2 * hertz / RATE, abs=1 / 400)
    assert found["energy p50"] == pytest.approx(10 * np.log10(0.3**2 / 2), abs=0.5)


def test_a_rising_voice_has_a_slope() -> None:
    semitones = 12 * np.log2(150 / 27.5) + 4 * TIME  # four semitones a second
    phase = 2 * np.pi * np.cumsum(27.5 * 2 ** (semitones / 12)) / RATE
    found = functionals(0.3 * np.sign(np.sin(phase)) * np.abs(np.sin(phase)) ** 0.5)
    assert found["pitch slope"] == pytest.approx(4, abs=0.2)
    assert found["pitch range"] == pytest.approx(0.9 * 8, abs=0.5)


def test_spectrum_of_a_high_tone_and_of_noise() -> None:
    high = functionals(sine(3000))
    assert high["centroid p50"] == pytest.approx(3000, abs=60)
    assert high["rolloff p50"] == pytest.approx(3000, abs=2 * RATE / 512)
    noise = functionals(tiny.noise(2).samples.astype(np.float64))
    assert noise["centroid mean"] == pytest.approx(4000, rel=0.03)
    assert noise["rolloff mean"] == pytest.approx(0.85 * 8000, rel=0.03)
    assert noise["voiced share"] < 0.05


def test_four_bursts_a_second_are_counted() -> None:
    found = functionals(sine(200) * (np.sin(2 * np.pi * 4 * TIME) > 0))
    assert found["loudness peaks per second"] == pytest.approx(4, abs=0.6)
    assert found["voiced runs per second"] == pytest.approx(4, abs=0.6)
    assert found["voiced run mean"] + found["gap mean"] == pytest.approx(0.25, abs=0.03)
    assert found["log seconds"] == pytest.approx(np.log(2), abs=0.01)


def test_cepstrum_against_sums_written_out() -> None:
    samples = tiny.noise(0.2).samples.astype(np.float64)
    measured = descriptors.describe(samples)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    at = 7
    cut = samples[at * 160 - 200 : at * 160 + 200] * window
    turns = np.exp(-2j * np.pi * np.outer(np.arange(257), np.arange(400)) / 512)
    power = np.abs(turns @ cut) ** 2
    corners = [700 * (10 ** (2840.0230467 * i / 41 / 2595) - 1) for i in range(42)]
    levels = []
    for low, peak, high in zip(corners, corners[1:], corners[2:], strict=False):
        hertz = np.arange(257) * 31.25
        heights = np.interp(hertz, [low, peak, high], [0, 2 / (high - low), 0])
        levels.append(10 * np.log10(max(float(heights @ power), 1e-10)))
    for c in (0, 1, 7, 19):
        expected = sum(level * np.cos(np.pi * c * (m + 0.5) / 40) for m, level in enumerate(levels))
        assert measured.cepstrum[at, c] == pytest.approx(expected * np.sqrt((2 if c else 1) / 40), abs=1e-6)
    expected_slope = np.polyfit(np.arange(9), measured.cepstrum[at - 4 : at + 5], 1)[0]
    np.testing.assert_allclose(measured.delta[at], expected_slope, atol=1e-9)


@pytest.mark.parametrize("samples", [np.zeros(RATE), np.ones(1600), np.zeros(1), np.eye(1, 3000)[0], sine(200, 1e-7)])
def test_any_sound_gives_finite_numbers(samples: npt.NDArray[np.float64]) -> None:
    found = functionals(samples)
    assert list(found) == list(functionals(np.zeros(RATE)))
    assert np.isfinite(list(found.values())).all()


def test_prosody_batch_is_single() -> None:
    encoder = load("prosody", "audio")
    assert encoder.info.width == 171
    check_batch_is_single(encoder)
    (flagged,) = encoder.encode([Waveform(tiny.noise(0.5).samples, ("over-long",))])
    assert flagged.flags == ("over-long",)


def test_prosody_takes_a_small_part_of_the_sound_s_own_time() -> None:
    encoder = load("prosody", "audio")
    began = time.perf_counter()
    encoder.encode([tiny.noise(30)])
    assert time.perf_counter() - began < 6


@pytest.mark.parametrize("name", ["egemapsv02", "is10"])
def test_opensmile_gives_the_golden_vectors(shared_data: Path, name: str) -> None:
    pytest.importorskip("opensmile")
    encoder = load(name, "audio")
    assert "non-commercial" in encoder.info.licence
    golden = pq.read_table(shared_data / "derived" / "librivox_opensmile.parquet").to_pylist()
    sounds = [read_audio(shared_data / "media" / row["file"]) for row in golden]
    for row, one in zip(golden, encoder.encode(sounds), strict=True):
        np.testing.assert_allclose(tiny.vector(one), row[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["egemapsv02", "compare2016"])
def test_opensmile_batch_is_single(name: str) -> None:
    pytest.importorskip("opensmile")
    check_batch_is_single(load(name, "audio"))


def test_wav2vec2_of_a_folder(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    import torch
    from transformers import Wav2Vec2Model

    folder = tiny.wav2vec2(tmp_path)
    encoder = load(f"hf:{folder}", "audio")
    check_batch_is_single(encoder)
    sound = tiny.noise(0.7)
    normal = (sound.samples - sound.samples.mean()) / np.sqrt(sound.samples.var() + 1e-7)
    with torch.no_grad():
        states = Wav2Vec2Model.from_pretrained(folder)(torch.from_numpy(normal)[None]).last_hidden_state[0]
    np.testing.assert_allclose(tiny.vector(encoder.encode([sound])[0]), states.mean(0), atol=1e-5)


def test_whisper_leaves_out_what_is_padding(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    import torch
    from transformers import WhisperFeatureExtractor, WhisperModel

    folder = tiny.whisper(tmp_path)
    encoder = load(f"hf:{folder}", "audio")
    check_batch_is_single(encoder)
    sound = tiny.noise(1.0)
    extractor: Any = WhisperFeatureExtractor
    features = extractor()(sound.samples, sampling_rate=RATE, return_tensors="pt").input_features
    with torch.no_grad():
        states = WhisperModel.from_pretrained(folder).get_encoder()(features).last_hidden_state[0]
    # 50 states a second.
    np.testing.assert_allclose(tiny.vector(encoder.encode([sound])[0]), states[:50].mean(0), atol=1e-5)


def test_whisper_hears_all_of_a_long_sound(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    encoder = load(f"hf:{tiny.whisper(tmp_path)}", "audio")
    first, second = tiny.noise(30).samples, tiny.noise(10, seed=1).samples
    whole, a, b = encoder.encode([Waveform(np.concatenate([first, second])), Waveform(first), Waveform(second)])
    expected = 0.75 * tiny.vector(a) + 0.25 * tiny.vector(b)
    np.testing.assert_allclose(tiny.vector(whole), expected, atol=1e-5)
