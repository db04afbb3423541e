"""A linear probe per modality, in closed form: do vectors of train predict their labels suspiciously well?

Ridge regression onto one-hot labels on standardised vectors, in float64. It is fitted from moments that are summed over
blocks, once per fold of train dialogues, so that it can be scored on held-out train dialogues. On honest
features that score is close to the one on test. If it is far above, an encoder was fitted to train labels.

Shape letters in this file:
    n rows of a block     D width of a modality's vectors     C classes
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
    source: Source, classes: Sequence[str], modalities: Mapping[Modality, ModalityAudit], limits: AuditThresholds
) -> dict[Modality, ProbeAudit]:
    """Fit and score the probes; reads the source twice.

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
    fits = {m: sums.fits() for m, sums in moments.items() if np.count_nonzero(sums.grams[:, -1, -1]) > 1}
    counts = {m: _Counts(np.zeros((3, len(index), len(index))), np.zeros(3)) for m in fits}
    for block in source.blocks():
        for modality, weights in fits.items():
            _score(counts[modality], block, modality, weights, index)
    return {m: _result(found) for m, found in counts.items() if found.confusion[2].any()}


@dataclass(frozen=True)
class _Rows:
    """Rows with a label and a finite vector that is not all zero.

    Attributes:
        values: ``(n, D + 1)`` float64, the last column all 1.
        labels, folds: ``(n,)``.
    """

    values: Floats
    labels: Ints
    folds: Ints


class _Moments:
    """Sums of products per fold, ``(FOLDS, D + 1, D + 1)`` among columns and ``(FOLDS, D + 1, C)`` with classes."""

    def __init__(self, width: int, classes: int) -> None:
        self.width = width
        self.grams = np.zeros((FOLDS, width + 1, width + 1))
        self.crosses = np.zeros((FOLDS, width + 1, classes))

    def add(self, rows: _Rows) -> None:
        """Add rows of train."""
        hot = np.eye(self.crosses.shape[2])[rows.labels]
        for fold in range(FOLDS):
            values = rows.values[rows.folds == fold]
            self.grams[fold] += values.T @ values
            self.crosses[fold] += values.T @ hot[rows.folds == fold]

    def fits(self) -> list[Floats]:
        """Return the weights fitted without each fold, then those fitted on all."""
        gram, cross = self.grams.sum(axis=0), self.crosses.sum(axis=0)
        parts = [(gram - without, cross - c) for without, c in zip(self.grams, self.crosses, strict=True)]
        return [fit(*part) for part in (*parts, (gram, cross))]


@dataclass(frozen=True)
class _Counts:
    """On train, on held-out train, on test: ``(3, C, C)`` confusion, and ``(3,)`` sums of leads."""

    confusion: Floats
    leads: Floats

    def add(self, place: int, labels: Ints, scores: Floats) -> None:
        """Count some predictions."""
        np.add.at(self.confusion[place], (labels, scores.argmax(axis=1)), 1)
        best = np.sort(scores, axis=1)
        self.leads[place] += (best[:, -1] - best[:, -2]).sum()


def _score(
    counts: _Counts, block: Block, modality: Modality, weights: Sequence[Floats], index: Mapping[str, int]
) -> None:
    width = len(weights[0]) - 1
    for rows in _usable(block, "train", modality, width, index):
        counts.add(0, rows.labels, rows.values @ weights[-1])
        for fold in range(FOLDS):
            out = rows.folds == fold
            counts.add(1, rows.labels[out], rows.values[out] @ weights[fold])
    for rows in _usable(block, "test", modality, width, index):
        counts.add(2, rows.labels, rows.values @ weights[-1])


def _result(counts: _Counts) -> ProbeAudit:
    train, held_out, test = (round(weighted_f1(found), 4) for found in counts.confusion)
    sizes = counts.confusion.sum(axis=(1, 2))
    leads = np.round(counts.leads / np.maximum(sizes, 1), 4)
    return ProbeAudit(
        train=train,
        held_out=held_out,
        test=test,
        train_utterances=int(sizes[0]),
        test_utterances=int(sizes[2]),
        held_out_lead=float(leads[1]),
        test_lead=float(leads[2]),
    )


def _usable(block: Block, split: str, modality: Modality, width: int, index: Mapping[str, int]) -> Iterator[_Rows]:
    if modality not in block.vectors:
        return
    inside = pc.equal(block.columns["split"], pa.scalar(split)).fill_null(False).to_numpy()
    if not inside.any():
        return
    labels = np.array([index.get(str(name), -1) for name in block.columns["label"].to_pylist()])
    for rows, values in dense(block.vectors[modality]):
        if values.shape[1] == width:
            good = inside[rows] & (labels[rows] >= 0) & np.isfinite(values).all(axis=1) & values.any(axis=1)
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
