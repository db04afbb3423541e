"""Statistics of a window against the reference, with limits from windows drawn from the version's own dev dialogues.

Shape letters in this file:
    W windows     K sums     J statistics     G groups     E bins     D dialogues of dev
"""

from typing import Final

import numpy as np

from ada2i.drift.reference import Reference, possible
from ada2i.errors import DataError
from ada2i.inference.sums import Columns, Floats
from ada2i.prediction.records import LEAST_DIALOGUES
from ada2i.records import Record

_NIGHTS, _FALSE_ALARMS = 30, 0.05  # the probability of a false alarm in a month of nights
_DRAWS = 10_000
_NEGLIGIBLE = 0.01  # no limit is below it: where dev lacks no text, a single missing one is no drift


PROTOCOL: Final = (
    f"Limits come from {_DRAWS:,} windows of as many dialogues, which are drawn from dev and weighted by a Bayesian "
    f"bootstrap: a month of {_NIGHTS} windows has a false alarm with a probability of {_FALSE_ALARMS:.0%} as long as "
    f"windows look like dev. No limit is below {_NEGLIGIBLE:g}."
)
"""How limits are found, in words."""


class Statistic(Record):
    """One statistic of a window.

    ``psi``: population stability index; ``shift``: distance of the means in standard deviations of the training set;
    ``missing``: difference of the shares of utterances without the modality; ``confidence`` and ``value``: difference
    of the means.
    """

    name: str  # psi.audio.3: the fourth group of the audio vectors' columns
    value: float
    usual: float  # mean over windows drawn from dev
    limit: float

    @property
    def kind(self) -> str:
        """``label``, ``confidence``, ``value``, ``missing``, ``shift``, or ``psi`` for the index of vectors."""
        kind, _, of = self.name.partition(".")
        return of if of in ("label", "confidence") else kind

    @property
    def exceeds(self) -> bool:
        """Whether the value is above its limit."""
        return self.value > self.limit

    @property
    def share(self) -> float:
        """The distance from the usual value, as a share of the limit's."""
        return (self.value - self.usual) / max(self.limit - self.usual, 1e-12)


class Drift(Record):
    """The comparison of a window with the reference."""

    dialogues: int
    statistics: tuple[Statistic, ...]  # the farthest first

    @property
    def drifted(self) -> bool:
        """Whether any statistic is above its limit."""
        return any(statistic.exceeds for statistic in self.statistics)

    @property
    def ratios(self) -> dict[str, float]:
        """By kind of statistic, the largest value as a share of its limit."""
        found: dict[str, float] = {}
        for one in self.statistics:
            found[one.kind] = max(found.get(one.kind, 0.0), one.value / one.limit)
        return found


def limits(reference: Reference, dialogues: int) -> tuple[Floats, Floats]:
    """Return what each statistic usually is, ``(J,)``, and its limit, ``(J,)``, for windows of a number of dialogues.

    The limits are those of one test over all statistics: the distance from the mean, in standard deviations, that the
    farthest statistic of a window exceeds so rarely that a month of 30 nights has a false alarm with a probability of
    5 %. Windows are drawn from dev dialogues, weighted by a Bayesian bootstrap (Rubin 1981), since dev itself is a
    sample.
    """
    drawn = statistics(reference.columns, _expected(reference), _drawn(reference.dev, dialogues))[1]
    usual, spread = drawn.mean(axis=0), drawn.std(axis=0) + 1e-9
    nightly = (1 - _FALSE_ALARMS) ** (1 / _NIGHTS)
    limit = usual + spread * np.quantile(((drawn - usual) / spread).max(axis=1), nightly)
    return usual, np.maximum(limit, _NEGLIGIBLE)


def judge(reference: Reference, sums: Floats, dialogues: int, bounds: tuple[Floats, Floats] | None = None) -> Drift:
    """Compare a window with the reference.

    Args:
        reference: See ``Reference``.
        sums: ``(K,)`` of the window.
        dialogues: Dialogues of the window.
        bounds: The result of ``limits`` for this number of dialogues, if the caller has it.

    Raises:
        DataError: The window has too few dialogues, other sums, or impossible ones.
    """
    if dialogues < LEAST_DIALOGUES:
        raise DataError(
            f"A window must have at least {LEAST_DIALOGUES} dialogues, but has {dialogues}. Predict more at once."
        )
    if sums.shape != reference.train.shape:
        raise DataError(
            f"A window must have {len(reference.train)} sums, but has {len(sums)}. Predict again, with this version of "
            "ada2i."
        )
    if sums[0] < dialogues or not possible(reference.columns, sums[None]):
        raise DataError(
            f"A window of {dialogues} dialogues must have as many utterances, counts from 0 and finite sums, but has "
            f"{sums[0]:g} utterances or such a sum. Predict again."
        )
    names, (values,) = statistics(reference.columns, _expected(reference), sums[None])
    usual, limit = bounds or limits(reference, dialogues)
    found = [
        Statistic(name=name, value=float(value), usual=float(mean), limit=float(most))
        for name, value, mean, most in zip(names, values, usual, limit, strict=True)
    ]
    return Drift(dialogues=dialogues, statistics=tuple(sorted(found, key=lambda one: -one.share)))


def _expected(reference: Reference) -> Floats:
    """Return the training sums with the answers on dev in place of those on data that the model has learned.

    They are scaled to the same number of utterances.
    """
    columns, dev = reference.columns, reference.dev.sum(axis=0)
    expected = reference.train.copy()
    for name in {"value", "confidence", "confidence_bins", "predicted"} & columns.places.keys():
        place = columns.places[name]
        expected[place] = dev[place] * (reference.train[0] / dev[0])
    return expected


def _drawn(dev: Floats, dialogues: int) -> Floats:
    """Return the sums of windows of dev dialogues, ``(W, K)``; the same ones in each call."""
    random, drawn = np.random.default_rng(0), []
    for _ in range(_DRAWS // 1000):
        weights = random.dirichlet(np.ones(len(dev)), size=1000)
        drawn.append(random.multinomial(dialogues, weights) @ dev)
    return np.concatenate(drawn)


def statistics(columns: Columns, expected: Floats, sums: Floats) -> tuple[list[str], Floats]:
    """Return the names of the statistics, and their values ``(W, J)``.

    Args:
        columns: What each sum counts.
        expected: ``(K,)`` sums that windows are compared with.
        sums: ``(W, K)`` of the windows.
    """
    at = columns.places
    names, found = ["psi.label", "psi.confidence", "confidence"], []
    found += [_psi(expected[at[name]][None], sums[:, at[name]][:, None]) for name in ("predicted", "confidence_bins")]
    for name in ("confidence", "value") if columns.numbers else ("confidence",):
        found.append(np.abs(sums[:, at[name]] / sums[:, :1] - expected[at[name]] / expected[0]))
    names += ["value"] * columns.numbers
    for modality, groups in columns.groups.items():
        there, usual = sums[:, at[f"present.{modality}"]], expected[at[f"present.{modality}"]]
        found.append(np.abs(there / sums[:, :1] - usual / expected[0]))
        mean = expected[at[f"total.{modality}"]] / np.maximum(usual, 1)
        deviation = np.sqrt(np.maximum(expected[at[f"squares.{modality}"]] / np.maximum(usual, 1) - mean**2, 1e-12))
        # Without an utterance that has the modality there is nothing to compare but its share.
        shift = np.abs(sums[:, at[f"total.{modality}"]] / np.maximum(there, 1) - mean) / deviation
        found.append(np.where(there > 0, shift, 0.0))
        bins = at[f"bins.{modality}"]
        found.append(_psi(expected[bins].reshape(groups, -1), sums[:, bins].reshape(len(sums), groups, -1)))
        names += [f"missing.{modality}"]
        names += [f"{kind}.{modality}.{group}" for kind in ("shift", "psi") for group in range(groups)]
    return names, np.concatenate(found, axis=1)


def _psi(expected: Floats, counts: Floats) -> Floats:
    """Return the population stability index, ``(W, G)``: the sum over bins of (q - p) * ln(q / p).

    Args:
        expected: ``(G, E)`` counts of the reference, with shares p; half a count is added to each bin.
        counts: ``(W, G, E)`` counts of the windows, with shares q; one count with the shares p is added.
    """
    p = (expected + 0.5) / (expected + 0.5).sum(axis=1, keepdims=True)
    q = (counts + p) / (counts.sum(axis=2, keepdims=True) + 1)
    index: Floats = ((q - p) * np.log(q / p)).sum(axis=2)
    return index
