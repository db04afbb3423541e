"""Reads hand-written tables (CSV, Parquet or JSON lines) into rows with canonical column names."""

import csv
import json
import math
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from ada2i import storage
from ada2i.errors import DataError
from ada2i.importers.arrow_types import EXACT, TableFile, iso_time, times
from ada2i.importers.rows import File, Rows, unread
from ada2i.importers.source import require_value
from ada2i.importers.transcripts import csv_lines

Lines: TypeAlias = list[dict[str, Any]]
Describe: TypeAlias = Callable[[str], str]


@dataclass(frozen=True)
class Kind:
    """The kind of values in a column.

    Attributes:
        must: Description of the values, as it follows "must hold" in messages.
        read: Converts a non-empty cell to a value; raises ``ValueError`` if it cannot.
        type: Arrow type of the resulting column.
    """

    must: str
    read: Callable[[Any], Any]
    type: pa.DataType


@dataclass(frozen=True)
class Field:
    """A column to look for.

    Attributes:
        kind: The kind of its values.
        required: Whether a table must have it.
        spellings: Other names of the column, the preferred one first.
    """

    kind: Kind
    required: bool = False
    spellings: tuple[str, ...] = ()


class _Time(int):
    """Microseconds since 1970, UTC, of a column of times."""


def _text(cell: Any) -> str:
    if isinstance(cell, str):  # JSON may hold half of a surrogate pair, which is no character
        return cell.strip().encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return str(_integer(cell))  # accepts 3.0: exports write integers so in a column with gaps


def _integer(cell: Any) -> int:
    if type(cell) is int:
        return cell
    value = _number(cell)
    if value.is_integer() and abs(value) < EXACT:
        return int(value)
    raise ValueError


def _whole(cell: Any) -> int:
    value = int(cell) if isinstance(cell, str) and cell.strip().isdecimal() else _integer(cell)
    if abs(value) >= 2**63:
        raise ValueError
    return value


def _number(cell: Any) -> float:
    if type(cell) in (str, int, float) and math.isfinite(value := float(cell)):
        return value
    raise ValueError


def _time(cell: Any) -> int:
    if isinstance(cell, str):
        return iso_time(cell)
    if isinstance(cell, _Time):
        return cell
    raise ValueError


TEXT = Kind("text or integers", _text, pa.string())
WHOLE = Kind("whole numbers", _whole, pa.int64())
NUMBER = Kind("finite numbers", _number, pa.float64())
TIME = Kind("times such as 2026-03-31T09:30:00Z or dates such as 2026-03-31", _time, pa.int64())


def read_table(uri: str, fields: Mapping[str, Field]) -> Rows:
    """Read a table; empty cells and NaN are null, and other columns are only described.

    Args:
        uri: A file with one of ``SUFFIXES``; any URI that fsspec opens.
        fields: The columns to look for, by canonical name.

    Returns:
        All fields, null if the table lacks one; ``names`` holds the columns that the table has.

    Raises:
        DataError: The file is damaged, lacks a required column, holds a wrong value, or has no row.
    """
    public = storage.public(uri)
    known = {name for ours, field in fields.items() for name in (ours, *field.spellings)}
    held, lines, describe = _READERS[f".{uri.lower().rpartition('.')[2]}"](storage.read_source(uri), public, known)
    names = _names(public, held, fields)
    if not lines:
        raise DataError(f"{public} must hold at least one row, but holds none. Check what wrote it.", uri=public)
    data = {
        ours: pa.array(_column(public, names[ours], field.kind, lines), field.kind.type)
        if ours in names
        else pa.array([None] * len(lines), field.kind.type)
        for ours, field in fields.items()
    }
    columns = pa.table(data)
    others = unread(held, names.values(), describe, [ours for ours in fields if ours not in names])
    return Rows(public, (File(public, columns, names, {}, unused=others),), columns)


def require_different(rows: Rows, keys: Sequence[Hashable], field: str, *, must: str, remedy: str) -> None:
    """Refuse the first row that repeats a key; None is not a key.

    Raises:
        DataError: A row repeats a key.
    """
    first: dict[Hashable, int] = {}
    before = [row if key is None else first.setdefault(key, row) for row, key in enumerate(keys)]
    rows.require(
        np.array(before) == np.arange(len(before)),
        field,
        must=must,
        found=lambda row: f"repeats that of {rows.place(before[row])}",
        remedy=remedy,
    )


def suffix_of(uri: str) -> str | None:
    """Return which of ``SUFFIXES`` a name ends with."""
    return next((suffix for suffix in SUFFIXES if uri.lower().endswith(suffix)), None)


def _names(uri: str, held: Sequence[str], fields: Mapping[str, Field]) -> dict[str, str]:
    """Return the table's own column names, by canonical name of the columns that it has."""
    names = {}
    for ours, field in fields.items():
        theirs = next((name for name in (ours, *field.spellings) if name in held), None)
        if theirs is None and field.required:
            raise DataError(
                f"{uri} must have the column `{ours}`, but has only {', '.join(map(repr, held)) or 'none'}. Add it, or "
                "rename the column that holds it.",
                uri=uri,
                field=ours,
            )
        if theirs is not None and held.count(theirs) > 1:
            raise DataError(
                f"{uri} must have one column `{theirs}`, but has {held.count(theirs)}. Rename or drop the others.",
                uri=uri,
                field=theirs,
            )
        if theirs is not None:
            names[ours] = theirs
    return names


def _column(uri: str, name: str, kind: Kind, lines: Lines) -> list[Any]:
    values = []
    for row, line in enumerate(lines):
        cell = line.get(name)
        try:
            values.append(None if _is_empty(cell) else kind.read(cell))
        except (ValueError, OverflowError) as problem:
            inexact = isinstance(cell, float) and EXACT <= abs(cell) < math.inf
            raise DataError(
                f"Column `{name}` of {uri} must hold {kind.must}, but row {row} holds {str(cell)[:80]!r}"
                f"{', and a float of 2^53 or more stands for several integers' if inexact else ''}. Correct the value, "
                "or leave it empty.",
                uri=uri,
                row=row,
                field=name,
            ) from problem
    return values


def _is_empty(cell: Any) -> bool:
    return cell is None or cell != cell or (isinstance(cell, str) and not cell.strip())  # noqa: PLR0124  # NaN


# --- formats: each function returns the column names, the rows, and a function that describes a column ---


def _read_csv(data: bytes, uri: str, _: Collection[str]) -> tuple[list[str], Lines, Describe]:
    try:
        lines = list(csv.reader(csv_lines(_decoded(data, uri)), strict=True))
    except csv.Error as problem:
        raise DataError(f"{uri} must be valid CSV, but is not: {problem}. Correct the quotes.", uri=uri) from problem
    filled = [line for line in lines if line]  # an empty line is not a row
    if not filled:
        return [], [], str
    held = [name.strip() for name in filled[0]]
    for row, line in enumerate(filled[1:]):
        if len(line) != len(held):
            raise DataError(
                f"{uri} must have {len(held)} values in each row, like its first line, but row {row} has "
                f"{len(line)}. Quote texts that hold commas, and leave no value out.",
                uri=uri,
                row=row,
            )
    rows = [dict(zip(held, line, strict=True)) for line in filled[1:]]
    return held, rows, partial(_describe, rows)


def _read_parquet(data: bytes, uri: str, known: Collection[str]) -> tuple[list[str], Lines, Describe]:
    file = TableFile.open(data, uri)
    held = [*file.columns, *file.folders]
    read = [name for name in known if held.count(name) == 1 and not pa.types.is_nested(file.kinds[name])]
    table = file.read(read)
    rows = Rows(uri, (File(uri, table, {}, {}),), table)
    columns = {}
    for name in read:
        column, require = table[name], partial(require_value, rows, name)
        timed = pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)
        cells = (times(column, require).cast(pa.int64()) if timed else column).to_pylist()
        columns[name] = [_Time(cell) if timed and cell is not None else cell for cell in cells]
    return held, [{name: cells[row] for name, cells in columns.items()} for row in range(file.rows)], file.describe


def _read_json_lines(data: bytes, uri: str, _: Collection[str]) -> tuple[list[str], Lines, Describe]:
    rows = list(_objects(_decoded(data, uri), uri))
    return list(dict.fromkeys(name for line in rows for name in line)), rows, partial(_describe, rows)


def _describe(lines: Lines, name: str) -> str:
    """Return what a column of cells holds, by its first value, as ``TableFile.describe`` does."""
    cell = next((line[name] for line in lines if not _is_empty(line.get(name))), None)
    if isinstance(cell, list) and cell and isinstance(cell[0], int | float):
        return f"{len(cell)} numbers a row"
    if isinstance(cell, str):
        with suppress(ValueError):
            float(cell)
            return "numbers"
    return _DESCRIPTIONS.get(type(cell), "numbers")


_DESCRIPTIONS: Mapping[type, str] = {
    str: "text",
    bool: "true or false",
    list: "lists",
    dict: "objects",
    type(None): "nothing",
}


def _objects(text: str, uri: str) -> Iterator[dict[str, Any]]:
    for row, line in enumerate(line for line in text.split("\n") if line.strip()):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as problem:
            raise _bad_line(uri, row, str(problem)) from problem
        if not isinstance(value, dict):
            raise _bad_line(uri, row, f"it is a {type(value).__name__}")
        yield value


def _bad_line(uri: str, row: int, found: str) -> DataError:
    return DataError(
        f"{uri} must hold a JSON object in each line, but row {row} does not: {found}. Correct the line.",
        uri=uri,
        row=row,
    )


def _decoded(data: bytes, uri: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise DataError(
            f"{uri} must be UTF-8, but is not at byte {problem.start}. Save it as UTF-8.", uri=uri
        ) from problem


_READERS = {".csv": _read_csv, ".parquet": _read_parquet, ".jsonl": _read_json_lines}
SUFFIXES = tuple(_READERS)
