"""Derives an audit's records from accumulated numbers: counts per split, vectors per modality, overlaps of splits.

Shape letters in this file:
    N rows of the source     n some of them     D width of a modality's vectors
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ada2i.audit.accumulate import NOTHING, ZERO, Accumulator, Codes, Digests, VectorStatistics
from ada2i.audit.records import Lengths, ModalityAudit, OverlapAudit, SplitAudit, VectorAudit
from ada2i.modalities import MODALITIES, Modality

SPLITS = ("train", "dev", "test", "gate")

_Contents = tuple[Codes, Digests]

_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio: spreads what it multiplies over all bits


@dataclass(frozen=True)
class CodedRows:
    """Codes and digests of each row.

    Attributes:
        splits: By name, ``(N,)`` bool; train, dev, test and gate first.
        dialogues, speakers, labels: ``(N,)`` codes, -1 where null.
        texts: ``(N,)`` digests of transcripts.
        vectors: By modality, ``(N,)`` digests.
    """

    splits: Mapping[str, NDArray[np.bool_]]
    dialogues: Codes
    speakers: Codes
    labels: Codes
    texts: Digests
    vectors: Mapping[Modality, Digests]

    def origins(self, modality: Modality) -> Digests:
        """Return ``(N,)`` digests of the origin of each vector, computed anew: all of them would take much memory.

        For a text vector the origin is its transcript, for other modalities the row itself. Vectors of the same origin
        are not counted as copies of one another.
        """
        rows = np.arange(1, len(self.texts) + 1, dtype=np.uint64) * _ODD
        made_of = np.where(self.texts == NOTHING, rows, self.texts) if modality == "text" else rows
        return _mixed(self.vectors[modality] + made_of * _ODD)


def coded_rows(total: Accumulator) -> CodedRows:
    """Return the codes and digests of all rows, and which rows each split has."""
    codes, names = total.codes("split"), total.names["split"]
    order = sorted(names, key=lambda name: (SPLITS.index(name) if name in SPLITS else len(SPLITS), name))
    return CodedRows(
        splits={name: codes == names[name] for name in order},
        dialogues=total.codes("dialogue_id"),
        speakers=total.codes("speaker"),
        labels=total.codes("label"),
        texts=total.texts(),
        vectors={m: total.vectors(m) for m in MODALITIES if m in total.values},
    )


def class_names(total: Accumulator) -> tuple[str, ...]:
    """Return the declared classes, in order, then other classes that occur, sorted (numbers by value)."""
    seen = set(total.names["label"]) - total.classes.keys()
    return (*total.classes, *sorted(seen, key=lambda name: (not name.isdecimal(), name.rjust(9, "0"), name)))


def count_split(total: Accumulator, rows: CodedRows, split: str, classes: Sequence[str]) -> SplitAudit:
    """Count utterances, classes and dialogues of a split."""
    here = rows.splits[split]
    labels, speakers = rows.labels[here], rows.speakers[here]
    known = total.names["label"]
    lengths = _lengths(rows.dialogues[here])
    return SplitAudit(
        utterances=int(here.sum()),
        dialogues=None if "dialogue_id" in total.absent else sum(lengths.histogram.values()) if lengths else 0,
        classes=None
        if "label" in total.absent
        else {name: int(np.count_nonzero(labels == known.get(name, -2))) for name in classes},
        lengths=lengths,
        speakers=len(np.unique(speakers[speakers >= 0])),
        unnamed=int(np.count_nonzero(speakers < 0)),
        transcripts=int(np.count_nonzero(rows.texts[here])),
        unlabelled=0 if "label" in total.absent else int(np.count_nonzero(labels < 0)),
    )


def count_modality(total: Accumulator, rows: CodedRows, modality: Modality) -> ModalityAudit:
    """Count and measure a modality's vectors."""
    widths: Counter[int] = Counter()
    for (width, _), part in total.values[modality].items():
        widths[width] += part.vectors
    width = max(widths, key=lambda w: (widths[w], w), default=0)
    codes = total.names["split"]
    values = {split: total.values[modality].get((width, codes[split]), VectorStatistics()) for split in rows.splits}
    return ModalityAudit(
        width=width,
        other_widths=widths.total() - widths[width],
        splits={split: _count_vectors(rows, split, modality, values[split]) for split in rows.splits},
        constant_columns=_constant([values["train"]] if "train" in values else list(values.values())),
        non_finite_columns=dict(sorted(total.non_finite_columns.get(modality, {}).items())),
        non_finite_kinds=tuple(sorted(total.non_finite_kinds.get(modality, ()))),
        non_finite_rows=tuple(total.non_finite_rows.get(modality, ())),
    )


def count_overlaps(rows: CodedRows) -> tuple[OverlapAudit, ...]:
    """Compare each of train, dev, test and gate with those before it."""
    held = [split for split in SPLITS if split in rows.splits]
    contents = {split: _contents(rows, split) for split in held}
    return tuple(_overlap(rows, earlier, later, contents) for earlier, later in combinations(held, 2))


def _lengths(dialogues: Codes) -> Lengths | None:
    _, lengths = np.unique(dialogues[dialogues >= 0], return_counts=True)
    if not len(lengths):
        return None
    histogram = dict(sorted(Counter(lengths.tolist()).items()))
    return Lengths(
        shortest=min(histogram), mean=_rounded(float(lengths.mean())), longest=max(histogram), histogram=histogram
    )


def _count_vectors(rows: CodedRows, split: str, modality: Modality, values: VectorStatistics) -> VectorAudit:
    here = rows.splits[split]
    digests, origins = rows.vectors[modality][here], rows.origins(modality)[here]
    real = digests > ZERO
    missing, some = int(np.count_nonzero(digests == NOTHING)), values.count > 0
    return VectorAudit(
        vectors=len(digests) - missing,
        missing=missing,
        zero=int(np.count_nonzero(digests == ZERO)),
        non_finite=values.non_finite,
        duplicates=len(np.unique(origins[real])) - len(np.unique(digests[real])),
        mean=_rounded(values.mean) if some else None,
        sd=_rounded(float(np.sqrt(values.square / values.count))) if some else None,
        low=_rounded(values.low) if some else None,
        high=_rounded(values.high) if some else None,
    )


def _constant(values: Sequence[VectorStatistics]) -> dict[int, float]:
    """Return the columns with one value in all vectors that are not all zero, of which there must be at least two."""
    low = np.min(np.broadcast_arrays(*(v.column_low for v in values)), axis=0)  # (D,)
    high = np.max(np.broadcast_arrays(*(v.column_high for v in values)), axis=0)
    if sum(v.vectors for v in values) < 2:
        return {}
    return {int(column): _rounded(float(low[column])) for column in np.flatnonzero(low == high)}


def _overlap(rows: CodedRows, earlier: str, later: str, contents: Mapping[str, _Contents]) -> OverlapAudit:
    before, after = rows.splits[earlier], rows.splits[later]
    (dialogues, first), (others, second) = contents[earlier], contents[later]
    _, here, there = np.intersect1d(dialogues, others, assume_unique=True, return_indices=True)
    return OverlapAudit(
        earlier=earlier,
        later=later,
        dialogue_ids=_shared(rows.dialogues[before], rows.dialogues[after]),
        dialogues=int(np.count_nonzero(first[here] == second[there])),
        speakers=_shared(rows.speakers[before], rows.speakers[after]),
        transcripts=int((np.isin(rows.texts[after], rows.texts[before]) & (rows.texts[after] != NOTHING)).sum()),
        copies={m: _copies(rows, m, before, after) for m in rows.vectors},
    )


def _copies(rows: CodedRows, modality: Modality, before: NDArray[np.bool_], after: NDArray[np.bool_]) -> int:
    vectors, origins = rows.vectors[modality], rows.origins(modality)
    copied = np.isin(vectors[after], vectors[before]) & ~np.isin(origins[after], origins[before])
    return int(np.count_nonzero(copied & (vectors[after] > ZERO)))


def _shared(before: Codes, after: Codes) -> int:
    return len(np.intersect1d(before[before >= 0], after[after >= 0]))


def _contents(rows: CodedRows, split: str) -> _Contents:
    """Return dialogues of a split, with a digest of each one's labels, transcripts and vectors in any order of rows.

    A dialogue whose vectors are all zero has no digest: such dialogues differ in too few ways.
    """
    here = np.flatnonzero(rows.splits[split] & (rows.dialogues >= 0))
    real = np.any([digests[here] > ZERO for digests in rows.vectors.values()], axis=0)
    each = _mixed(rows.labels[here].astype(np.uint64) * _ODD + rows.texts[here])
    for digests in rows.vectors.values():
        each = _mixed(each * _ODD + digests[here])
    dialogues, places = np.unique(rows.dialogues[here], return_inverse=True)
    totals, solid = np.zeros(len(dialogues), np.uint64), np.zeros(len(dialogues), bool)
    np.add.at(totals, places, each)
    np.logical_or.at(solid, places, real)
    return dialogues[solid], totals[solid]


def _mixed(digests: Digests) -> Digests:
    digests = (digests ^ (digests >> np.uint64(33))) * _ODD
    return digests ^ (digests >> np.uint64(29))


def _rounded(value: float) -> float:
    """Return six significant digits: further digits depend on the order of rows."""
    return float(f"{value:.6g}")
