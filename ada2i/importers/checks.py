"""Checks of the values in a corpus, each over all rows at once; messages name the first bad row.

Shape letters in this file:
    N utterances of all files, concatenated     D width of a modality's vectors
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ada2i.data import schema
from ada2i.data.splits import ALIASES, normalise_split
from ada2i.errors import DataError
from ada2i.importers.rows import Bools, Rows
from ada2i.modalities import Modality

KEYS = ("dialogue_id", "utterance_index", "split")


def check_keys(rows: Rows, names: Iterable[str] = KEYS) -> None:
    """Refuse nulls in a column that needs a value in every row."""
    for name in names:
        rows.require(
            rows.columns[name].is_valid().to_numpy(),
            name,
            must="hold a value in every row",
            found=lambda _: "is null",
            remedy="Fill it in, or remove the row.",
        )


def with_splits(rows: Rows) -> Rows:
    """Return the rows with canonical split names; train and test must exist."""
    rows = renamed_splits(rows)
    held = pc.unique(rows.columns["split"]).to_pylist()
    for split in ("train", "test"):
        if split not in held:
            raise DataError(
                f"{rows.source} must hold rows of `split` train and test, but no row has {split}. Add the rows; "
                "only dev, which is then cut from train, and gate are optional.",
                uri=rows.source,
                field="split",
            )
    return rows


def renamed_splits(rows: Rows) -> Rows:
    """Return the rows with canonical split names; none is null."""
    written = rows.columns["split"].combine_chunks().dictionary_encode()
    names = [normalise_split(str(name)) for name in written.dictionary.to_pylist()]
    rows.require(
        np.array([name is not None for name in names])[written.indices.to_numpy()],
        "split",
        must=f"hold one of {', '.join(ALIASES)}",
        found=lambda row: f"holds {rows.columns['split'][row].as_py()!r}",
        remedy="Rename it, or remove the row.",
    )
    place = rows.columns.schema.get_field_index("split")
    splits = pa.array(names, pa.string()).take(written.indices)
    return replace(rows, columns=rows.columns.set_column(place, "split", splits))


def check_order(rows: Rows) -> None:
    """Check that the utterances of each dialogue in a split are numbered 0, 1, 2..., in any order of rows."""
    index = rows.columns["utterance_index"].to_numpy()
    split, dialogue = (
        rows.columns[name].combine_chunks().dictionary_encode().indices.to_numpy() for name in ("split", "dialogue_id")
    )
    order = np.lexsort((index, dialogue, split))  # stable: of duplicates, the one read later comes second
    back = np.argsort(order)
    before = np.roll(order, 1)
    joined = (split[order] == split[before]) & (dialogue[order] == dialogue[before])  # with the row before
    joined[0] = False
    _check_duplicates(rows, (joined & (index[order] == index[before]))[back], before[back])
    at = np.arange(len(order))
    _check_gaps(rows, index, (at - np.maximum.accumulate(np.where(joined, 0, at)))[back])


def _check_duplicates(rows: Rows, repeated: Bools, before: NDArray[np.int64]) -> None:
    rows.require(
        ~repeated,
        "utterance_index",
        must="differ between the rows of a dialogue in a split",
        found=lambda row: f"repeats that of {rows.place(int(before[row]))}",
        remedy="Remove one of the rows, or correct its `dialogue_id`.",
    )


def _check_gaps(rows: Rows, index: NDArray[np.int64], due: NDArray[np.int64]) -> None:
    rows.require(
        index == due,
        "utterance_index",
        must="count 0, 1, 2... without a gap in each dialogue of a split",
        found=lambda row: f"is where {due[row]} is expected",
        remedy="Add the missing utterance, or renumber the dialogue.",
    )


def checked_vectors(rows: Rows, modality: Modality) -> "pa.Array[Any]":
    """Return a modality's vectors as a shard stores them: ``(N, D)`` finite numbers, null if missing."""
    name = schema.vector_column(modality)
    column, field = rows.columns[name], rows.names[name]
    lengths = pc.list_value_length(column).fill_null(pa.scalar(-1, pa.int64())).to_numpy()
    if not (lengths > 0).any():
        raise DataError(
            f"Column `{field}` of {rows.source} must hold a vector in at least one row, but is empty in all rows "
            "from row 0 on. Remove the column, or add the vectors.",
            uri=rows.source,
            field=field,
        )
    first = int(np.argmax(lengths > 0))
    width = int(lengths[first])
    must = f"hold vectors of one width, and {rows.place(first)} has width {width}"
    return vectors_of_width(rows, modality, width, must=must)


def vectors_of_width(rows: Rows, modality: Modality, width: int, *, must: str) -> "pa.Array[Any]":
    """Return a modality's vectors as ``checked_vectors`` does, for a known width ``D``.

    Args:
        rows: The rows.
        modality: Which vectors.
        width: The width that they must have.
        must: The same in words, as it follows "must".
    """
    name = schema.vector_column(modality)
    column, field = rows.columns[name], rows.names[name]
    present = column.is_valid().to_numpy()
    lengths = pc.list_value_length(column).fill_null(pa.scalar(-1, pa.int64())).to_numpy()
    rows.require(
        ~present | (lengths == width),
        field,
        must=must,
        found=lambda row: f"has width {lengths[row]}",
        remedy="Extract all vectors with one encoder; use null if an utterance lacks the modality.",
    )
    values = np.zeros((len(present), width), np.float32)
    values[present] = schema.flat_values(column).reshape(-1, width)
    _check_finite(rows, field, values)
    return schema.pack_vectors(values, present)


def checked_targets(rows: Rows) -> "pa.Array[Any] | None":
    """Return the targets as a shard stores them: ``(N,)`` finite float32, null without one; None: no row has one."""
    name = schema.TARGET.name
    if name not in rows.columns.column_names or rows.columns[name].null_count == rows.columns.num_rows:
        return None
    column = rows.columns[name]
    numbers, missing = column.fill_null(pa.scalar(0.0, column.type)).to_numpy(), column.is_null().to_numpy()
    with np.errstate(over="ignore"):  # becomes infinite, which is refused
        values = numbers.astype(np.float32)
    rows.require(
        np.isfinite(values),
        name,
        must="hold finite float32 numbers",
        found=lambda row: f"holds {numbers[row]}",
        remedy="Correct the number, or write null for an utterance without a target.",
    )
    return pa.array(values, mask=missing)


def _check_finite(rows: Rows, field: str, values: NDArray[np.float32]) -> None:
    finite = np.isfinite(values)
    rows.require(
        np.asarray(finite.all(axis=1)),
        field,
        must="hold finite float32 numbers",
        found=lambda row: f"holds {values[row][~finite[row]][0]} at position {np.argmin(finite[row])} of the vector",
        remedy="Correct the number, or set the vector to null if the utterance lacks the modality.",
    )
