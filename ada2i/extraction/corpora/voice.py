"""Synthesises a voice-like sound: a harmonic tone through three formants, split into syllables, with breath noise.

Shape letters in this file:
    S samples     P samples of one period
"""

import io
import wave
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RATE = 16_000  # Hz

_PERIOD = 512
_HARMONICS = np.arange(1, 31)
_FORMANTS = ((600.0, 120.0), (1400.0, 180.0), (2600.0, 250.0))  # centre and width in Hz


@dataclass(frozen=True)
class Manner:
    """The voice of an emotion.

    Attributes:
        pitch: Factor on the speaker's pitch at rest.
        loudness: Largest amplitude; full scale is 1.
        rate: Syllables per second.
        vibrato: Relative deviation of pitch.
        breath: Amplitude of the noise relative to the tone.
    """

    pitch: float
    loudness: float
    rate: float
    vibrato: float
    breath: float


MANNERS: Mapping[str, Manner] = {
    "neutral": Manner(pitch=1.00, loudness=0.30, rate=4.0, vibrato=0.010, breath=0.04),
    "joy": Manner(pitch=1.25, loudness=0.42, rate=5.0, vibrato=0.030, breath=0.04),
    "sadness": Manner(pitch=0.85, loudness=0.16, rate=2.5, vibrato=0.015, breath=0.10),
    "anger": Manner(pitch=1.10, loudness=0.65, rate=5.5, vibrato=0.010, breath=0.12),
    "surprise": Manner(pitch=1.50, loudness=0.46, rate=3.5, vibrato=0.060, breath=0.04),
    "fear": Manner(pitch=1.35, loudness=0.24, rate=6.5, vibrato=0.050, breath=0.16),
}


def speak(random: np.random.RandomState, manner: Manner, *, pitch: float, seconds: float) -> bytes:
    """Return a 16 kHz mono 16-bit wav.

    Args:
        random: Source of deviations from the manner, and of breath noise.
        manner: How to speak.
        pitch: Pitch of the speaker at rest, in Hz.
        seconds: Duration.
    """
    time = np.arange(round(seconds * RATE)) / RATE
    wobble = np.exp(random.normal(0, (0.05, 0.15, 0.10, 0.20)))
    tone = pitch * manner.pitch * wobble[0]
    beat = 2 * np.pi * (5.5 * time + random.random_sample())
    drift = 1 + manner.vibrato * wobble[3] * np.sin(beat) - 0.08 * time / seconds  # speech falls towards its end
    cycles = np.cumsum(tone * drift / RATE)
    period = _period(tone)
    voiced = period[(cycles * _PERIOD).astype(np.int64) % _PERIOD]
    syllables = np.sin(np.pi * manner.rate * wobble[2] * time) ** 2
    breath = manner.breath * random.standard_normal(len(time))
    sound = manner.loudness * wobble[1] * (0.1 + 0.9 * syllables) * (voiced + breath)
    return encode(sound + 0.002 * random.standard_normal(len(time)))


def encode(sound: NDArray[np.float64]) -> bytes:
    """Return ``(S,)`` amplitudes of -1 to 1 as a wav; louder ones are clipped."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


def _period(pitch: float) -> NDArray[np.float64]:
    """Return ``(P,)`` amplitudes of one period, 1 at most: harmonics that decay, except those near a formant."""
    frequency = pitch * _HARMONICS
    gain = sum(np.exp(-0.5 * ((frequency - centre) / width) ** 2) for centre, width in _FORMANTS)
    amplitude = (0.15 + gain) / _HARMONICS
    angle = 2 * np.pi * np.arange(_PERIOD) / _PERIOD
    wave_ = amplitude @ np.sin(np.outer(_HARMONICS, angle))
    found: NDArray[np.float64] = wave_ / np.abs(wave_).max()
    return found
