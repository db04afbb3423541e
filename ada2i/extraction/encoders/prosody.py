"""The default audio encoder: 171 named numbers that describe how an utterance is spoken.

Functionals (mean, deviation, percentiles...) over the frames' pitch, loudness, spectrum and cepstrum. Nothing is
learned: there are no weights, and no restrictions on use.

Shape letters in this file:
    S samples     T frames
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ada2i import storage
from ada2i.data.provenance import EncoderInfo
from ada2i.extraction.encoders import descriptors, pitch
from ada2i.extraction.encoders.base import Encoded, encode_each, finite
from ada2i.extraction.encoders.descriptors import Array
from ada2i.extraction.media import RATE, Waveform

_FRAMES_PER_SECOND = RATE / descriptors.HOP
_SEMITONES_FROM = 27.5  # Hz: A0
_PEAK_DB = 3.0  # how far a loudness peak, about a syllable, rises above the neighbouring dips


class Prosody:
    """Functionals of pitch, loudness, spectrum and cepstrum."""

    def __init__(self) -> None:
        revision = 1
        self.info = EncoderInfo(
            name="prosody",
            modality="audio",
            width=len(functionals(np.zeros(RATE))),
            licence="Apache-2.0",
            source="this package",
            weights_digest=storage.digest(f"prosody {revision}".encode()),
            revision=revision,
        )

    def encode(self, items: Sequence[Waveform | None]) -> list[Encoded]:
        """Encode sounds, one by one."""
        return encode_each(items, _encode)


def _encode(item: Waveform) -> Encoded:
    values = functionals(item.samples.astype(np.float64))
    return finite(np.fromiter(values.values(), np.float64), item.flags)


def functionals(samples: npt.NDArray[np.float64]) -> dict[str, float]:
    """Return all numbers of ``(S,)`` samples at 16 kHz, by name; the names do not depend on the sound."""
    measured = descriptors.describe(samples)
    tone = pitch.track(samples, measured.series["energy"])
    values = _pitch(tone)
    for name, series in {**measured.series, "periodicity": tone.periodicity}.items():
        values |= {f"{name} {kind}": value for kind, value in _summary(series).items()}
    values |= _rhythm(measured.series["energy"], tone.voiced)
    for number, (level, slope) in enumerate(zip(measured.cepstrum.T, measured.delta.T, strict=True)):
        low, high = np.percentile(level, [20, 80])
        kinds = {"mean": level.mean(), "deviation": level.std(), "p20": low, "p80": high}
        values |= {f"mfcc {number} {kind}": float(value) for kind, value in kinds.items()}
        values[f"mfcc {number} delta deviation"] = float(slope.std())
    return values


def _summary(series: Array) -> dict[str, float]:
    """Return level, spread and trend of ``(T,)`` values; zeros if there are no values."""
    if not series.size:
        series = np.zeros(1)
    low, p20, p50, p80, high = np.percentile(series, [5, 20, 50, 80, 95])
    return {
        "mean": float(series.mean()),
        "deviation": float(series.std()),
        "p20": float(p20),
        "p50": float(p50),
        "p80": float(p80),
        "range": float(high - low),
        "slope": _slope(series),
        "change": float(np.abs(np.diff(series)).mean()) if series.size > 1 else 0.0,
    }


def _slope(series: Array) -> float:
    """Return the least-squares slope per second."""
    time = np.arange(series.size) / _FRAMES_PER_SECOND
    time -= time.mean()
    return float(time @ series) / max(float(time @ time), 1e-12)


def _pitch(tone: pitch.Pitch) -> dict[str, float]:
    """Return functionals of the voiced frames' pitch, in semitones, which match perceived pitch steps."""
    semitones = 12 * np.log2(tone.hertz[tone.voiced] / _SEMITONES_FROM)
    return {f"pitch {kind}": value for kind, value in _summary(semitones).items()}


def _rhythm(energy: Array, voiced: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Return how speech and pauses alternate, in seconds and per second."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], voiced, [False]]).astype(int)))
    starts, ends = edges[::2], edges[1::2]
    runs = (ends - starts) / _FRAMES_PER_SECOND
    gaps = (starts[1:] - ends[:-1]) / _FRAMES_PER_SECOND
    seconds = energy.size / _FRAMES_PER_SECOND
    return {
        "voiced share": float(voiced.mean()),
        "voiced runs per second": runs.size / seconds,
        "voiced run mean": float(runs.mean()) if runs.size else 0.0,
        "voiced run deviation": float(runs.std()) if runs.size else 0.0,
        "gap mean": float(gaps.mean()) if gaps.size else 0.0,
        "loudness peaks per second": _peaks(energy) / seconds,
        "log seconds": float(np.log(seconds)),
    }


def _peaks(energy: Array) -> int:
    """Count the peaks of loudness that rise ``_PEAK_DB`` above the dips on both sides."""
    count, rising, dip, peak = 0, True, float(energy[0]), float(energy[0])
    for level in energy.tolist():
        if rising and level < peak - _PEAK_DB:
            count += peak > dip + _PEAK_DB
            rising, dip = False, level
        elif not rising and level > dip + _PEAK_DB:
            rising, peak = True, level
        dip, peak = min(dip, level), max(peak, level) if rising else peak
    return count
