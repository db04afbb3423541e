"""Pitch every 10 ms, after YIN (de Cheveigne and Kawahara 2002, steps 1 to 5).

Shape letters in this file:
    S samples     T frames     P periods, in samples
"""

from dataclasses import dataclass

import numpy as np

from ada2i.extraction.encoders.descriptors import Array, frames
from ada2i.extraction.media import RATE

LOWEST, HIGHEST = 60.0, 500.0  # Hz
_LONGEST, _SHORTEST = int(RATE / LOWEST) + 1, int(RATE / HIGHEST)  # periods, samples
_WINDOW = 512  # samples compared with those one period later: 32 ms
_FFT = 1024  # long enough for both without wrap-around
_ABSOLUTE = 0.15  # the first dip below it is the period
_VOICED = 0.35  # aperiodicity below which a frame is voiced
_QUIET = -60.0  # dB of full scale; no frame below it is voiced
_CHUNK = 512  # frames at a time, which limits memory for long sounds


@dataclass(frozen=True, slots=True, eq=False)
class Pitch:
    """Pitch of each frame.

    Attributes:
        hertz: ``(T,)``; meaningful where voiced.
        periodicity: ``(T,)`` in [0, 1].
        voiced: ``(T,)`` bool.
    """

    hertz: Array
    periodicity: Array
    voiced: np.ndarray[tuple[int], np.dtype[np.bool_]]


def track(samples: Array, energy: Array) -> Pitch:
    """Find the pitch.

    Args:
        samples: ``(S,)`` at 16 kHz.
        energy: ``(T,)`` dB of full scale, at the same times.
    """
    cut = frames(samples, _WINDOW + _LONGEST + 1)[: len(energy)]
    found = [_periods(cut[first : first + _CHUNK]) for first in range(0, len(cut), _CHUNK)]
    period, aperiodicity = (np.concatenate(parts) for parts in zip(*found, strict=True))
    voiced = (aperiodicity < _VOICED) & (energy[: len(cut)] > _QUIET)
    return Pitch(RATE / period, 1 - np.clip(aperiodicity, 0, 1), voiced)


def _periods(cut: Array) -> tuple[Array, Array]:
    """Return each frame's period in fractional samples, and its aperiodicity."""
    differences = _normalised(_differences(cut))  # (T, P)
    inner = differences[:, 1:-1]
    dips = (inner <= differences[:, :-2]) & (inner <= differences[:, 2:]) & (inner < _ABSOLUTE)
    dips[:, : _SHORTEST - 1] = False
    first = np.where(dips.any(axis=1), dips.argmax(axis=1) + 1, inner[:, _SHORTEST - 1 :].argmin(axis=1) + _SHORTEST)
    row = np.arange(len(cut))
    before, at, after = (differences[row, first + step] for step in (-1, 0, 1))
    curvature = before - 2 * at + after
    shift = np.where(curvature > 0, 0.5 * (before - after) / np.where(curvature > 0, curvature, 1), 0)
    return first + np.clip(shift, -1, 1), at


def _differences(cut: Array) -> Array:
    """Return ``(T, P)``: energy of a window's difference from itself some samples later (YIN, equation 6)."""
    windows = np.fft.rfft(cut[:, :_WINDOW], _FFT)
    products = np.fft.irfft(np.fft.rfft(cut, _FFT) * windows.conj(), _FFT)[:, : _LONGEST + 2]
    sums = np.cumsum(np.pad(cut**2, ((0, 0), (1, 0))), axis=1)
    energies = sums[:, _WINDOW:] - sums[:, :-_WINDOW]  # energies of the later windows
    return np.maximum(energies[:, :1] + energies[:, : _LONGEST + 2] - 2 * products, 0)


def _normalised(differences: Array) -> Array:
    """Return each difference divided by the mean of those at shorter periods (YIN, equation 8); 1 at period 0."""
    period = np.arange(differences.shape[1])
    sums = np.cumsum(differences, axis=1)
    # In silence all differences are zero; nothing is periodic, so the result is 1 everywhere.
    return np.where(sums > 0, differences * period / np.where(sums > 0, sums, 1), 1.0)
