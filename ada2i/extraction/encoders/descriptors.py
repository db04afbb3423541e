"""Acoustic descriptors every 10 ms: loudness, spectrum, cepstrum.

Implemented with numpy: librosa gives the same numbers, but its compilation takes 18 s on every new machine and 200 MB.

Shape letters in this file:
    S samples     T frames     K frequency bins     M mel bands     C cepstral coefficients
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ada2i.extraction.media import RATE

Array = npt.NDArray[np.float64]

HOP = 160  # samples between frames: 10 ms
_WINDOW = 400  # 25 ms
_FFT = 512
_BANDS = 40
_COEFFICIENTS = 20
_FLOOR = 1e-10  # of power; -100 dB
_ROLLOFF = 0.85
_DELTA = 4  # frames to each side over which a slope is taken


@dataclass(frozen=True, slots=True, eq=False)
class Descriptors:
    """The measurements of each frame.

    Attributes:
        series: By name, ``(T,)``: ``energy`` dB of full scale, ``zero-crossings`` per sample, ``centroid``,
            ``bandwidth`` and ``rolloff`` Hz, ``flux`` in [0, 1].
        cepstrum: ``(T, C)`` MFCC in decibels, orthonormal.
        delta: ``(T, C)`` their slopes per frame.
    """

    series: dict[str, Array]
    cepstrum: Array
    delta: Array


def frames(samples: Array, length: int) -> Array:
    """Return ``(T, length)`` windows every ``HOP`` samples, centred on their times; zeros beyond both ends."""
    padded = np.pad(samples, length // 2)
    return np.lib.stride_tricks.sliding_window_view(padded, length)[::HOP]


def describe(samples: Array) -> Descriptors:
    """Measure ``(S,)`` samples at 16 kHz."""
    cut = frames(samples, _WINDOW)
    power = np.abs(np.fft.rfft(cut * np.hanning(_WINDOW + 1)[:-1], _FFT)) ** 2  # (T, K)
    signs = np.signbit(cut)
    series = {
        "energy": 10 * np.log10(np.maximum((cut**2).mean(axis=1), _FLOOR)),
        "zero-crossings": (signs[:, 1:] != signs[:, :-1]).mean(axis=1),
        **_shape(np.sqrt(power)),
    }
    bands = 10 * np.log10(np.maximum(power @ _mel().T, _FLOOR))  # (T, M)
    cepstrum = bands @ _cosines().T
    return Descriptors(series, cepstrum, _slopes(cepstrum))


def _shape(magnitude: Array) -> dict[str, Array]:
    """Return the spread of each spectrum of ``(T, K)``, and its difference from the one before."""
    frequencies = np.fft.rfftfreq(_FFT, 1 / RATE)  # (K,)
    share = magnitude / np.maximum(magnitude.sum(axis=1, keepdims=True), _FLOOR)
    centroid = share @ frequencies
    bandwidth = np.sqrt((share * (frequencies - centroid[:, None]) ** 2).sum(axis=1))
    below = np.cumsum(share, axis=1) < _ROLLOFF * share.sum(axis=1, keepdims=True)
    flux = 0.5 * np.abs(np.diff(share, axis=0, prepend=share[:1])).sum(axis=1)
    return {
        "centroid": centroid,
        "bandwidth": bandwidth,
        "rolloff": frequencies[below.sum(axis=1)],
        "flux": flux,
    }


def _slopes(values: Array) -> Array:
    """Return the least-squares slope of each column of ``(T, C)`` over its neighbours; edge values are repeated."""
    padded = np.pad(values, ((_DELTA, _DELTA), (0, 0)), mode="edge")
    steps = range(1, _DELTA + 1)
    middle, count = _DELTA, len(values)
    rises = [n * (padded[middle + n :][:count] - padded[middle - n :][:count]) for n in steps]
    slopes: Array = np.sum(rises, axis=0) / (2 * sum(n * n for n in steps))
    return slopes


@lru_cache(maxsize=1)
def _mel() -> Array:
    """Return ``(M, K)`` triangles, evenly spaced in mel (O'Shaughnessy 1987), each of area 1 in Hz."""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, top, _BANDS + 2) / 2595) - 1)  # Hz
    frequencies = np.fft.rfftfreq(_FFT, 1 / RATE)
    low, peak, high = (corners[i : i + _BANDS, None] for i in range(3))
    rising, falling = (frequencies - low) / (peak - low), (high - frequencies) / (high - peak)
    weights: Array = np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
    return weights


@lru_cache(maxsize=1)
def _cosines() -> Array:
    """Return ``(C, M)``: the first rows of the orthonormal DCT-II."""
    place = np.arange(_BANDS) + 0.5
    rows: Array = np.cos(np.pi / _BANDS * np.arange(_COEFFICIENTS)[:, None] * place) * np.sqrt(2 / _BANDS)
    rows[0] /= np.sqrt(2)
    return rows
