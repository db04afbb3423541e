"""Processes blocks one after another; keeps a few numbers per row and per column, never the vectors.

A vector is stored as a 64-bit digest of its bytes: among a million distinct vectors, two have the same digest with
probability 3e-8.

Shape letters in this file:
    N rows of all blocks, concatenated     n rows of one block     D width of a modality's vectors
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ada2i.audit.blocks import Block, dense
from ada2i.data.schema import Column
from ada2i.importers.checks import KEYS
from ada2i.modalities import Modality

Codes = NDArray[np.int32]  # index into names, -1 where null
Digests = NDArray[np.uint64]

NOTHING, ZERO = np.uint64(0), np.uint64(1)  # stand for a missing and for an all-zero vector; no digest is either

_Number = TypeVar("_Number", np.int32, np.uint64)
_CODED = ("split", "dialogue_id", "speaker", "label")
_INF = np.float32(np.inf)
_FIRST = 10  # rows that are kept as examples


@dataclass
class VectorStatistics:
    """Statistics of one modality's vectors of one width in one split.

    Attributes:
        mean, square, low, high: Mean of the finite numbers, sum of squared distances from it, and their bounds.
        column_low, column_high: ``(D,)`` bounds over finite numbers of vectors that are not all zero.
    """

    vectors: int = 0
    non_finite: int = 0
    count: int = 0
    mean: float = 0.0
    square: float = 0.0
    low: float = np.inf
    high: float = -np.inf
    column_low: NDArray[np.float32] | float = np.inf
    column_high: NDArray[np.float32] | float = -np.inf

    def add(self, values: NDArray[np.float32], finite: NDArray[np.bool_], zero: NDArray[np.bool_]) -> None:
        """Add ``(n, D)`` vectors."""
        self.vectors += len(values)
        whole = bool(finite.all())
        self.non_finite += 0 if whole else int(np.count_nonzero(~finite.all(axis=1)))
        self._spread((values.reshape(-1) if whole else values[finite]).astype(np.float64))
        real, known = (values[~zero], finite[~zero]) if zero.any() else (values, finite)
        low, high = (real, real) if whole else (np.where(known, real, bound) for bound in (_INF, -_INF))
        self.column_low = np.minimum(self.column_low, low.min(axis=0, initial=_INF))
        self.column_high = np.maximum(self.column_high, high.max(axis=0, initial=-_INF))

    def _spread(self, flat: NDArray[np.float64]) -> None:
        if not len(flat):
            return
        mean = float(flat.mean())
        total, shift = self.count + len(flat), mean - self.mean
        apart = flat - mean
        self.square += float(apart @ apart) + shift**2 * self.count * len(flat) / total
        self.mean += shift * len(flat) / total
        self.count = total
        self.low, self.high = min(self.low, float(flat.min())), max(self.high, float(flat.max()))


@dataclass
class Accumulator:
    """The statistics of all blocks so far.

    Attributes:
        names: By coded column, the code of each name.
        values: By modality, by width and the split's code.
        non_finite_columns: By modality and column, the number of rows.
    """

    rows: int = 0
    names: Mapping[str, dict[str, int]] = field(default_factory=lambda: {name: {} for name in _CODED})
    values: dict[Modality, dict[tuple[int, int], VectorStatistics]] = field(default_factory=dict)
    non_finite_columns: dict[Modality, dict[int, int]] = field(default_factory=dict)
    non_finite_kinds: dict[Modality, set[str]] = field(default_factory=dict)
    non_finite_rows: dict[Modality, list[int]] = field(default_factory=dict)
    null_keys: dict[str, int] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)
    classes: dict[str, None] = field(default_factory=dict)  # declared classes, in order
    dataset: str | None = None
    _codes: dict[str, list[Codes]] = field(default_factory=lambda: defaultdict(list))
    _texts: list[Digests] = field(default_factory=list)
    _vectors: dict[Modality, list[Digests]] = field(default_factory=lambda: defaultdict(list))

    def add(self, block: Block) -> None:
        """Add a block."""
        for name in _CODED:
            self._codes[name].append(_coded(block.columns[name], self.names[name]))
        for name in KEYS:
            if name not in block.absent and (nulls := block.columns[name].null_count):
                self.null_keys[name] = self.null_keys.get(name, 0) + nulls
        if block.empty_labels:
            self.null_keys["label"] = self.null_keys.get("label", 0) + block.empty_labels
        self._texts.append(_text_digests(block.columns["text"]))
        splits = self._codes["split"][-1]
        for modality, column in block.vectors.items():
            found = self._vectors[modality]
            found.append(np.full(self.rows - sum(map(len, found)), NOTHING))  # blocks before that lack the modality
            found.append(self._add_vectors(modality, column, splits))
        self.absent |= set(block.absent)
        self.classes |= dict.fromkeys(block.classes)
        self.dataset = self.dataset or block.dataset
        self.rows += block.columns.num_rows

    def codes(self, name: str) -> Codes:
        """Return a column's ``(N,)`` codes."""
        return _joined(self._codes[name])

    def texts(self) -> Digests:
        """Return ``(N,)`` digests of transcripts that ignore case and spaces; ``NOTHING`` for a missing transcript."""
        return _joined(self._texts)

    def vectors(self, modality: Modality) -> Digests:
        """Return ``(N,)`` digests of a modality's vectors, ``NOTHING`` or ``ZERO``."""
        found = self._vectors[modality]
        found.append(np.full(self.rows - sum(map(len, found)), NOTHING))
        return _joined(found)

    def _add_vectors(self, modality: Modality, column: Column, splits: Codes) -> Digests:
        digests = np.full(len(column), NOTHING)
        statistics = self.values.setdefault(modality, {})
        for rows, values in dense(column):
            finite, zero = np.isfinite(values), np.logical_not(values.any(axis=1))
            digests[rows] = np.where(zero, ZERO, vector_digests(values))
            self._note_non_finite(modality, rows, values, finite)
            for split in np.unique(splits[rows]).tolist():
                here = splits[rows] == split
                group = statistics.setdefault((values.shape[1], split), VectorStatistics())
                if here.all():
                    group.add(values, finite, zero)
                else:
                    group.add(values[here], finite[here], zero[here])
        return digests

    def _note_non_finite(
        self, modality: Modality, rows: NDArray[np.int64], values: NDArray[np.float32], finite: NDArray[np.bool_]
    ) -> None:
        if finite.all():
            return
        columns = self.non_finite_columns.setdefault(modality, {})
        for column, number in enumerate(np.count_nonzero(~finite, axis=0).tolist()):
            if number:
                columns[column] = columns.get(column, 0) + number
        self.non_finite_kinds.setdefault(modality, set()).update(map(str, np.unique(values[~finite]).tolist()))
        noted = self.non_finite_rows.setdefault(modality, [])
        bad = rows[~finite.all(axis=1)][: _FIRST - len(noted)]
        noted.extend((bad + self.rows).tolist())


def accumulate(blocks: Iterable[Block]) -> Accumulator:
    """Read all blocks once."""
    total = Accumulator()
    for block in blocks:
        total.add(block)
    return total


def _joined(parts: list[NDArray[_Number]]) -> NDArray[_Number]:
    """Return the parts concatenated, and replace them by the result: memory has no room for both."""
    parts[:] = [np.concatenate(parts)]
    return parts[0]


def vector_digests(values: NDArray[np.float32]) -> Digests:
    """Return ``(n,)`` digests of the bytes of ``(n, D)`` vectors."""
    return _digests(memoryview(row) for row in np.ascontiguousarray(values))


def _text_digests(column: Column) -> Digests:
    texts = (" ".join((text or "").split()).casefold().encode() for text in column.to_pylist())
    return _digests(texts)


def _digests(parts: Iterator[bytes | memoryview]) -> Digests:
    """Return a digest of 2 or more for each part, ``NOTHING`` for an empty one."""
    raw = b"".join(blake2b(part, digest_size=8).digest() if len(part) else bytes(8) for part in parts)
    found = np.frombuffer(raw, np.uint64)
    return np.where(found == ZERO, np.uint64(2), found)


def _coded(column: Column, known: dict[str, int]) -> Codes:
    coded = column.combine_chunks().dictionary_encode()
    codes = np.array([known.setdefault(str(name), len(known)) for name in coded.dictionary.to_pylist()], np.int32)
    found = coded.indices.fill_null(-1).to_numpy()
    return np.where(found < 0, np.int32(-1), np.append(codes, np.int32(-1))[found]).astype(np.int32)
