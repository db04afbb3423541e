"""Tests whether one of two models is significantly better on the same test dialogues.

Both tests work on dialogues, since utterances of one dialogue are not independent of each other, and both are paired:
the two models are compared on the same dialogues in every round. They compare two sets of predictions, that is, two
trained models; they do not include the variation between seeds.

Shape letters in this file:
    N utterances     C classes     D dialogues     R rounds     S scores, those of ``HEADLINES``
"""

from collections.abc import Iterator
from itertools import zip_longest
from typing import Literal

import numpy as np
import pyarrow as pa

from ada2i.data.parquet import from_parquet
from ada2i.display import count
from ada2i.errors import DataError
from ada2i.evaluation.metrics import HEADLINES, Counts, Numbers, check_classes, divide, f1_by_class, weighted_f1
from ada2i.records import Interval, Record

_COLUMNS = ("dialogue_id", "utterance_index", "label", "prediction", "probabilities")
_PART = 1000  # rounds at a time, which bounds the memory that many dialogues take
_ROUNDING = 1e-12  # smaller differences of scores count as equal

Row = tuple[object, ...]


class Difference(Record):
    """The difference of two models in one score; positive if the second is better."""

    first: float
    second: float
    difference: float  # second minus first
    interval: Interval
    p_bootstrap: float
    p_randomisation: float


class Comparison(Record):
    """Two models on the same test dialogues."""

    schema_version: Literal[1] = 1
    first: str
    second: str
    synthetic: bool
    dialogues: int
    utterances: int
    changed: int  # utterances for which the two predict different classes
    rounds: int
    differences: dict[str, Difference]  # by the names of ``HEADLINES``


def compare(
    first: bytes,
    second: bytes,
    *,
    names: tuple[str, str] = ("the first", "the second"),
    synthetic: bool = False,
    rounds: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compare two models by their predictions for one test split.

    The interval is a percentile bootstrap: D dialogues are drawn with replacement, the same ones for both models.
    ``p_bootstrap`` uses the same draws: 2 * min(low, high), at most 1, where low (high) is the share of resamples
    with a difference of 0 or less (0 or more), counted as (number + 1) / (rounds + 1). ``p_randomisation`` is that of
    an approximate randomisation test: each dialogue's two sets of predictions are swapped with chance 1/2, and p is the
    share of rounds with a difference at least as large as the one found, in either direction, counted alike.
    The same arguments give the same numbers on every machine, up to rounding.

    Args:
        first: A ``predictions.parquet``, with columns dialogue_id, utterance_index, label, prediction, probabilities.
        second: Another one, of the same utterances in any order.
        names: Names of the two models.
        synthetic: Whether the data are synthetic; only passed on.
        rounds: Number of resamples, and of rounds of swaps.
        level: Share of the resamples inside the interval.
        seed: Seed of the draws.

    Raises:
        DataError: A file does not hold predictions, or the two differ in their classes, utterances or labels.
    """
    tables = _read(first, names[0]), _read(second, names[1])
    _check_same(tables, names)
    counts = _count(tables, names)
    found, drawn = _gap(counts.sum(axis=1)[:, None])[0], _bootstrap(counts, rounds, seed)
    swapped, scores = _swaps(counts, rounds, seed), _scores(counts.sum(axis=1))
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)  # (R, S) -> (S,)
    below, above = _share(drawn <= _ROUNDING), _share(drawn >= -_ROUNDING)
    p_bootstrap = np.minimum(1.0, 2 * np.minimum(below, above))
    p_randomisation = _share(np.abs(swapped) >= np.abs(found) - _ROUNDING)
    return Comparison(
        first=names[0],
        second=names[1],
        synthetic=synthetic,
        dialogues=counts.shape[1],
        utterances=len(tables[0]),
        changed=int((_values(tables[0], "prediction") != _values(tables[1], "prediction")).sum()),
        rounds=rounds,
        differences={
            name: Difference(
                first=float(scores[0, s]),
                second=float(scores[1, s]),
                difference=float(found[s]),
                interval=Interval(low=float(low[s]), high=float(high[s]), level=level, resamples=rounds),
                p_bootstrap=float(p_bootstrap[s]),
                p_randomisation=float(p_randomisation[s]),
            )
            for s, name in enumerate(HEADLINES)
        },
    )


def verdict(comparison: Comparison) -> str:
    """Return the meaning of a comparison as one sentence.

    A difference is called significant if both tests agree: the interval of weighted F1 excludes 0, and
    ``p_randomisation`` is below 1 - level. With few dialogues the bootstrap alone is too confident.
    """
    found = comparison.differences["weighted_f1"]
    bounds, p = found.interval, found.p_randomisation
    shown = (bounds.low > 0 or bounds.high < 0) and p < 1 - bounds.level
    low, high = sorted((abs(bounds.low), abs(bounds.high))) if shown else (bounds.low, bounds.high)
    facts = f"weighted F1 ({bounds.level * 100:g} % interval {low:.4f} to {high:.4f}, p = {p:.4f})"
    if shown:
        better = comparison.second if found.difference > 0 else comparison.first
        return f"{better} is better by {abs(found.difference):.4f} {facts}: more than chance."
    number = count(comparison.dialogues, "dialogue")
    gap = f"{comparison.second} minus {comparison.first} is {found.difference:+.4f} {facts}"
    return f"No difference that {number} could show: {gap}."


def _read(data: bytes, name: str) -> pa.Table:
    """Return predictions, sorted by dialogue and utterance."""
    try:
        table = from_parquet(data)
    except pa.ArrowInvalid as problem:
        raise DataError(
            f"The predictions of {name} must be a Parquet file, but are not: {problem}. Evaluate the model again."
        ) from problem
    if missing := [column for column in _COLUMNS if column not in table.column_names]:
        raise DataError(
            f"The predictions of {name} must have columns {', '.join(_COLUMNS)}, but lack {', '.join(missing)}. "
            "Evaluate the model again."
        )
    if not len(table):
        raise DataError(f"The predictions of {name} must hold an utterance or more, but hold none. Check the splits.")
    return table.sort_by([("dialogue_id", "ascending"), ("utterance_index", "ascending")])


def _check_same(tables: tuple[pa.Table, pa.Table], names: tuple[str, str]) -> None:
    """Refuse predictions that differ in their utterances, labels or number of classes."""
    widths = [_classes(table) for table in tables]
    if widths[0] != widths[1]:
        raise DataError(
            f"Two models can be compared if they predict the same classes, but {names[0]} knows {widths[0]} and "
            f"{names[1]} {widths[1]}. Compare models of one label set."
        )
    rows = [_rows(table) for table in tables]
    if rows[0] != rows[1]:
        here, there = next((a, b) for a, b in zip_longest(*rows) if a != b)
        raise DataError(
            "Two models can be compared that were tested on the same utterances with the same labels, but these "
            f"first differ where {names[0]} has {_said(here)} and {names[1]} has {_said(there)}. "
            "Compare models of one dataset and test split."
        )


def _rows(table: pa.Table) -> list[Row]:
    return list(zip(*(table[column].to_pylist() for column in _COLUMNS[:3]), strict=True))


def _said(row: Row | None) -> str:
    return "nothing" if row is None else f"dialogue {row[0]}, utterance {row[1]}, label {row[2]}"


def _classes(table: pa.Table) -> int:
    return len(table["probabilities"][0].as_py())


def _values(table: pa.Table, column: str) -> Counts:
    return np.asarray(table[column].to_numpy())


def _count(tables: tuple[pa.Table, pa.Table], names: tuple[str, str]) -> Numbers:
    """Return ``(2, D, C * C)`` confusion counts of both models by dialogue: floats, for fast and exact products."""
    classes = _classes(tables[0])
    ids = np.unique(np.asarray(tables[0]["dialogue_id"].to_pylist()), return_inverse=True)[1]
    dialogues, counts = int(ids.max()) + 1, []
    for table, name in zip(tables, names, strict=True):
        true, predicted = _values(table, "label"), _values(table, "prediction")
        check_classes(f"Labels of {name}", true, classes)
        check_classes(f"Predictions of {name}", predicted, classes)
        cells = (ids * classes + true) * classes + predicted
        counts.append(np.bincount(cells, minlength=dialogues * classes**2).reshape(dialogues, classes**2))
    return np.stack(counts).astype(np.float64)


def _bootstrap(counts: Numbers, rounds: int, seed: int) -> Numbers:
    """Return ``(R, S)`` differences of the models over resampled dialogues; counts: ``(2, D, C * C)``."""
    # RandomState's streams never change; those of default_rng may change between versions of numpy.
    random, dialogues = np.random.RandomState(seed), counts.shape[1]
    shares = np.full(dialogues, 1 / dialogues)
    draws = (random.multinomial(dialogues, shares, size=size).astype(np.float64) for size in _parts(rounds))
    return np.concatenate([_gap(drawn @ counts) for drawn in draws])  # (part, D) @ (2, D, C*C) -> (2, part, C*C)


def _swaps(counts: Numbers, rounds: int, seed: int) -> Numbers:
    """Return ``(R, S)`` differences after swapping the models in half of the dialogues; counts: ``(2, D, C * C)``."""
    random, dialogues = np.random.RandomState(seed), counts.shape[1]
    totals, change, drawn = counts.sum(axis=1)[:, None], counts[1] - counts[0], []
    for size in _parts(rounds):
        moved = random.randint(2, size=(size, dialogues)).astype(np.float64) @ change  # (part, D) @ (D, C*C)
        drawn.append(_gap(totals + np.stack([moved, -moved])))
    return np.concatenate(drawn)


def _parts(rounds: int) -> Iterator[int]:
    for start in range(0, rounds, _PART):
        yield min(_PART, rounds - start)


def _gap(totals: Numbers) -> Numbers:
    """Return the second model's scores less the first's, ``(2, R, C * C)`` counts -> ``(R, S)``."""
    scores = _scores(totals)
    return np.asarray(scores[1] - scores[0])


def _scores(totals: Numbers) -> Numbers:
    """Return the scores of ``HEADLINES``, ``(..., C * C)`` counts -> ``(..., S)``."""
    classes = round(totals.shape[-1] ** 0.5)
    tables = totals.reshape(*totals.shape[:-1], classes, classes)
    accuracy = divide(np.trace(tables, axis1=-2, axis2=-1), totals.sum(axis=-1))
    return np.stack([weighted_f1(tables), f1_by_class(tables).mean(axis=-1), accuracy], axis=-1)


def _share(hits: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Numbers:
    """Return the share of rounds that hit, the one found counted as one more: ``(R, S)`` -> ``(S,)``, never 0."""
    return np.asarray((hits.sum(axis=0) + 1) / (len(hits) + 1))
