"""Checks of the values in a corpus, each over all rows at once; messages name the first bad row.

Shape letters in this file:
    N utterances of all files, concatenated     D width of a modality's vectors
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ada2i.data import schema, spool
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
                "dev and gate may be absent: dev is then cut from train.",
                uri=rows.source,
                field="split",
            )
    return rows


def optional_splits(rows: Rows) -> Rows:
    """Return the rows with canonical split names: one in every row, or an empty one in each if no row has a split."""
    if rows.columns["split"].null_count == rows.columns.num_rows:
        return rows.with_column("split", pa.array([""] * rows.columns.num_rows))
    check_keys(rows, ("split",))
    return renamed_splits(rows)


def renamed_splits(rows: Rows) -> Rows:
    """Return the rows with canonical split names; none is null."""
    written, held = schema.factorized(rows.columns["split"])
    names = [normalise_split(str(name)) for name in held.to_pylist()]
    rows.require(
        np.array([name is not None for name in names], np.bool_)[written],
        "split",
        must=f"hold one of {', '.join(ALIASES)}",
        found=lambda row: f"holds {rows.columns['split'][row].as_py()!r}",
        remedy="Rename it, or remove the row.",
    )
    if names == held.to_pylist() and held.type == pa.string():
        return rows
    # On disk, like the other columns.
    splits = spool.stored([pa.table({"split": pa.array(names, pa.string()).take(written)})])
    return rows.with_column("split", splits["split"])


def check_order(rows: Rows) -> None:
    """Check that the utterances of each dialogue in a split are numbered 0, 1, 2..., in any order of rows."""
    if schema.RowOrder.of(rows.columns).counted:
        return
    index = rows.columns["utterance_index"].to_numpy()
    split, dialogue = (schema.factorized(rows.columns[name])[0] for name in ("split", "dialogue_id"))
    order = np.lexsort((index, dialogue, split))  # stable: of duplicates, the one read later comes second
    back = np.argsort(order)
    before = np.roll(order, 1)
    joined = (split[order] == split[before]) & (dialogue[order] == dialogue[before])  # with the row before
    joined[0] = False
    rows.require(
        ~(joined & (index[order] == index[before]))[back],
        "utterance_index",
        must="differ between the rows of a dialogue in a split",
        found=lambda row: f"repeats that of {rows.place(int(before[back][row]))}",
        remedy="Remove one of the rows, or correct its `dialogue_id`.",
    )
    at = np.arange(len(order))
    due = (at - np.maximum.accumulate(np.where(joined, 0, at)))[back]
    rows.require(
        index == due,
        "utterance_index",
        must="count 0, 1, 2... without a gap in each dialogue of a split",
        found=lambda row: f"is where {due[row]} is expected",
        remedy="Add the missing utterance, or renumber the dialogue.",
    )


def check_vectors(rows: Rows, modality: Modality) -> int:
    """Refuse a modality's vectors unless all have one width ``D``, which is returned, and finite numbers."""
    name = schema.vector_column(modality)
    column, field = rows.columns[name], rows.names[name]
    lengths = _lengths(column)
    if not (lengths > 0).any():
        raise DataError(
            f"Column `{field}` of {rows.source} must hold a vector in at least one row, but is empty in all rows "
            "from row 0 on. Remove the column, or add the vectors.",
            uri=rows.source,
            field=field,
        )
    first = int(np.argmax(lengths > 0))
    width = int(lengths[first])
    _check_widths(rows, field, lengths, width, f"hold vectors of one width, and {rows.place(first)} has width {width}")
    _check_finite(rows, modality, width)
    return width


def vectors_of_width(rows: Rows, modality: Modality, width: int, *, must: str) -> "pa.Array[Any]":
    """Check a modality's vectors as ``check_vectors`` does, for a known width, and return them.

    Args:
        rows: The rows.
        modality: Which vectors.
        width: The width that they must have.
        must: The same in words, as it follows "must".

    Returns:
        The vectors as a shard stores them: ``(N, D)`` finite numbers, null if missing.
    """
    name = schema.vector_column(modality)
    _check_widths(rows, rows.names[name], _lengths(rows.columns[name]), width, must)
    _check_finite(rows, modality, width)
    return packed(rows.columns[name], width)


def packed(column: schema.Column, width: int) -> "pa.Array[Any]":
    """Return checked vectors of a width as a shard stores them."""
    return schema.pack_vectors(*_dense(column, width))


def _dense(column: schema.Column, width: int) -> tuple[NDArray[np.float32], Bools]:
    """Return vectors as ``(N, D)``, zeros if missing, and which are present."""
    present = column.is_valid().to_numpy()
    values = np.zeros((len(present), width), np.float32)
    values[present] = schema.flat_values(column).reshape(-1, width)
    return values, present


def _lengths(column: schema.Column) -> NDArray[np.int32]:
    """Return the width of each vector, -1 if missing."""
    nothing = pa.scalar(-1, pa.int64())
    chunks: Any = column.chunks
    found = [pc.list_value_length(chunk).fill_null(nothing).to_numpy().astype(np.int32) for chunk in chunks]
    return np.concatenate(found) if found else np.zeros(0, np.int32)


def _check_widths(rows: Rows, field: str, lengths: NDArray[np.int32], width: int, must: str) -> None:
    rows.require(
        (lengths == -1) | (lengths == width),
        field,
        must=must,
        found=lambda row: f"has width {lengths[row]}",
        remedy="Extract all vectors with one encoder; use null if an utterance lacks the modality.",
    )


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


def _check_finite(rows: Rows, modality: Modality, width: int) -> None:
    name = schema.vector_column(modality)
    parts = spool.pieces(rows.columns.select([name]))
    good = np.concatenate([np.isfinite(_dense(part[name], width)[0]).all(axis=1) for part in parts])

    def found(row: int) -> str:
        (values,) = _dense(rows.columns[name].slice(row, 1), width)[0]
        finite = np.isfinite(values)
        return f"holds {values[~finite][0]} at position {np.argmin(finite)} of the vector"

    rows.require(
        good,
        rows.names[name],
        must="hold finite float32 numbers",
        found=found,
        remedy="Correct the number, or set the vector to null if the utterance lacks the modality.",
    )
