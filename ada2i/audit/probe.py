"""A linear probe per modality, in closed form: do vectors of train predict their labels suspiciously well?

Ridge regression onto one-hot labels on standardised vectors, in float64. It is fitted from moments that are summed over
blocks, once per fold of train dialogues, so that it can be scored on held-out train dialogues. On honest
features that score is close to the one on test. If it is far above, an encoder was fitted to train labels.

Shape letters in this file:
    n rows of a block     D width of a modality's vectors     C classes
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ada2i.audit.blocks import Block, Source, dense
from ada2i.audit.records import ModalityAudit, ProbeAudit, SplitAudit
from ada2i.audit.thresholds import AuditThresholds
from ada2i.evaluation.probe import fit, weighted_f1
from ada2i.modalities import Modality

FOLDS = 5

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def can_probe(splits: Mapping[str, SplitAudit], absent: Sequence[str], limits: AuditThresholds) -> bool:
    """Return whether a source has the data that a probe needs, and is small enough."""
    counts = [splits[name].classes for name in ("train", "test") if name in splits]
    labelled = [sum(number > 0 for number in found.values()) > 1 for found in counts if found]
    rows = sum(split.utterances for split in splits.values())
    return len(labelled) == 2 and labelled[0] and not absent and rows <= limits.probe_rows


def probe(
    source: Source,
    classes: Sequence[str],
    modalities: Mapping[Modality, ModalityAudit],
    limits: AuditThresholds,
) -> dict[Modality, ProbeAudit]:
    """Fit and score the probes; reads the source twice.

    The lead on test is the larger one of two: on its vectors with the scale of train, and with the means of train, too.
    Another gain, loudness or microphone makes a probe less confident of the former, other shares of the classes of the
    latter, although the vectors separate the classes as well.

    Args:
        source: A source for which ``can_probe`` is true.
        classes: ``C`` names of classes.
        modalities: The record of each modality; too wide ones are left out.
        limits: The limit of the width.
    """
    index = {name: place for place, name in enumerate(classes)}
    moments = {m: _Moments(known.width, len(index)) for m, known in modalities.items() if known.width}
    moments = {m: sums for m, sums in moments.items() if sums.width <= limits.probe_width}
    for block in source.blocks():
        for modality, sums in moments.items():
            for rows in _usable(block, "train", modality, sums.width, index):
                sums.add(rows)
            for rows in _usable(block, "test", modality, sums.width, index, unlabelled=True):
                sums.test.add(rows.values[:, :-1])
    fits = {m: sums.fits() for m, sums in moments.items() if np.count_nonzero(sums.grams[:, -1, -1]) > 1}
    counts = {m: _Counts(len(index)) for m in fits}
    for block in source.blocks():
        for modality, weights in fits.items():
            _score(counts[modality], block, modality, weights=weights, index=index, moments=moments[modality])
    return {m: _result(found) for m, found in counts.items() if found.rows[2]}


@dataclass(frozen=True)
class _Rows:
    """Rows with a finite vector that is not all zero.

    Attributes:
        values: ``(n, D + 1)`` float64, the last column all 1.
        labels, folds: ``(n,)``.
    """

    values: Floats
    labels: Ints
    folds: Ints


class _Columns:
    """Number, sum and sum of squares of rows, ``(D,)`` each."""

    def __init__(self, width: int) -> None:
        self.rows, self.sums, self.squares = 0, np.zeros(width), np.zeros(width)

    def add(self, values: Floats) -> None:
        """Add rows, ``(n, D)``."""
        self.rows += len(values)
        self.sums += values.sum(axis=0)
        self.squares += np.square(values).sum(axis=0)

    def mean_and_deviation(self) -> tuple[Floats, Floats]:
        """Return mean and deviation, ``(D,)`` each; the deviation of a constant column is 0."""
        mean = self.sums / max(self.rows, 1)
        return mean, np.sqrt(np.maximum(self.squares / max(self.rows, 1) - mean**2, 0.0))


class _Moments:
    """Sums of products per fold, ``(FOLDS, D + 1, D + 1)`` among columns and ``(FOLDS, D + 1, C)`` with classes."""

    def __init__(self, width: int, classes: int) -> None:
        self.width = width
        self.test = _Columns(width)
        self.grams = np.zeros((FOLDS, width + 1, width + 1))
        self.crosses = np.zeros((FOLDS, width + 1, classes))

    def add(self, rows: _Rows) -> None:
        """Add rows of train."""
        hot = np.eye(self.crosses.shape[2])[rows.labels]
        for fold in range(FOLDS):
            values = rows.values[rows.folds == fold]
            self.grams[fold] += values.T @ values
            self.crosses[fold] += values.T @ hot[rows.folds == fold]

    def scaled(self, test: Floats) -> Floats:
        """Return rows of test, ``(n, D + 1)``, times the factor that gives the median column the deviation of train.

        Not each column's own deviation: on train it is larger in the columns that were fitted to its labels.
        """
        return np.hstack([test[:, :-1] * self._alignment[0], test[:, -1:]])

    def as_train(self, test: Floats) -> Floats:
        """Return rows of test, ``(n, D + 1)``, scaled, and with the means of train."""
        factor, shift = self._alignment
        return np.hstack([test[:, :-1] * factor + shift, test[:, -1:]])

    @cached_property
    def _alignment(self) -> tuple[float, Floats]:
        gram = self.grams.sum(axis=0)
        train = _Columns(self.width)
        train.rows, train.sums, train.squares = int(gram[-1, -1]), gram[-1, :-1], np.diag(gram)[:-1]
        (mean, deviation), (own_mean, own_deviation) = train.mean_and_deviation(), self.test.mean_and_deviation()
        moving = own_deviation > 1e-6 * np.abs(own_mean)
        factor = float(np.median(deviation[moving] / own_deviation[moving])) if moving.any() else 0.0
        return factor, mean - own_mean * factor

    def fits(self) -> list[Floats]:
        """Return the weights fitted without each fold, then those fitted on all."""
        gram, cross = self.grams.sum(axis=0), self.crosses.sum(axis=0)
        parts = [(gram - without, cross - c) for without, c in zip(self.grams, self.crosses, strict=True)]
        return [fit(*part) for part in (*parts, (gram, cross))]


class _Counts:
    """On train, held-out train, test, test with the scale of train, and test with its means, too.

    ``(5, C, C)`` confusion, and ``(5,)`` rows and sums of leads.
    """

    def __init__(self, classes: int) -> None:
        self.confusion, self.rows, self.leads = np.zeros((5, classes, classes)), np.zeros(5), np.zeros(5)

    def add(self, place: int, labels: Ints, scores: Floats) -> None:
        """Count some predictions; a negative label is unknown."""
        known = labels >= 0
        np.add.at(self.confusion[place], (labels[known], scores[known].argmax(axis=1)), 1)
        best = np.sort(scores, axis=1)
        self.rows[place] += len(scores)
        self.leads[place] += (best[:, -1] - best[:, -2]).sum()


def _score(
    counts: _Counts,
    block: Block,
    modality: Modality,
    *,
    weights: Sequence[Floats],
    index: Mapping[str, int],
    moments: _Moments,
) -> None:
    width = len(weights[0]) - 1
    for rows in _usable(block, "train", modality, width, index):
        counts.add(0, rows.labels, rows.values @ weights[-1])
        for fold in range(FOLDS):
            out = rows.folds == fold
            counts.add(1, rows.labels[out], rows.values[out] @ weights[fold])
    for rows in _usable(block, "test", modality, width, index, unlabelled=True):
        counts.add(2, rows.labels, rows.values @ weights[-1])
        counts.add(3, rows.labels, moments.scaled(rows.values) @ weights[-1])
        counts.add(4, rows.labels, moments.as_train(rows.values) @ weights[-1])


def _result(counts: _Counts) -> ProbeAudit:
    train, held_out = (round(weighted_f1(found), 4) for found in counts.confusion[:2])
    leads = np.round(counts.leads / np.maximum(counts.rows, 1), 4)
    return ProbeAudit(
        train=train,
        held_out=held_out,
        test=round(weighted_f1(counts.confusion[2]), 4) if counts.confusion[2].any() else None,
        train_utterances=int(counts.rows[0]),
        test_utterances=int(counts.rows[2]),
        held_out_lead=float(leads[1]),
        test_lead=float(leads[3:].max()),
    )


def _usable(
    block: Block, split: str, modality: Modality, width: int, index: Mapping[str, int], *, unlabelled: bool = False
) -> Iterator[_Rows]:
    """Yield labelled rows; with ``unlabelled`` all rows, with label -1 for those without one."""
    if modality not in block.vectors:
        return
    inside = pc.equal(block.columns["split"], pa.scalar(split)).fill_null(False).to_numpy()
    if not inside.any():
        return
    labels = np.array([index.get(str(name), -1) for name in block.columns["label"].to_pylist()])
    for rows, values in dense(block.vectors[modality]):
        if values.shape[1] == width:
            known = unlabelled | (labels[rows] >= 0)
            good = inside[rows] & known & np.isfinite(values).all(axis=1) & values.any(axis=1)
            padded = np.hstack([values[good].astype(np.float64), np.ones((int(good.sum()), 1))])
            yield _Rows(padded, labels[rows[good]], _folds(block, rows[good]))


def _folds(block: Block, rows: Ints) -> Ints:
    """Return ``(n,)`` folds: the same for all utterances of a dialogue, independent of the order of rows."""
    coded = block.columns["dialogue_id"].combine_chunks().fill_null("").dictionary_encode()
    names = (str(name).encode() for name in coded.dictionary.to_pylist())
    folds = np.array(
        [int.from_bytes(blake2b(name, digest_size=4).digest(), "little") % FOLDS for name in names], np.int64
    )
    chosen: Ints = folds[coded.indices.to_numpy()[rows]]
    return chosen
