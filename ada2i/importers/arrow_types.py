"""Arrow types of columns in input files, and their conversion to the types of a feature set."""

import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import IO, Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ada2i import storage
from ada2i.data import schema
from ada2i.data.schema import Column

Kinds = Mapping[str, pa.DataType]  # by column of a file

Require = Callable[[NDArray[np.bool_], str, Callable[[int], str]], None]
"""Refuses the first row that is not good: which are, what must hold, and what was found in a row."""

EXACT = 2**53  # from here on, a float stands for several integers
_DATE = re.compile(r"\d{4}-(\d\d-|W)|\d{8}T", re.ASCII)
_MICROSECONDS = {"s": 10**6, "ms": 10**3, "us": 1, "ns": 1}
_DAY = 86_400 * 10**6  # microseconds
_NUMBERS = ("utterance_index", "label")  # columns whose values in a folder's name are numbers, if they look so
_FOLDER_KINDS = {int: pa.int64(), datetime: pa.timestamp("us", "UTC")}
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class TableFile:
    """An open Parquet file of a table.

    Attributes:
        uri: Its location, for messages.
        kinds: The types of its columns without encodings and extensions, also of those that only its folders name.
        metadata: The keys and values of the Parquet schema.
        folders: By column that the file lacks, the value that a folder's name gives as ``column=value``.
    """

    uri: str
    file: schema.ParquetFile
    kinds: Kinds
    metadata: Mapping[str, str]
    folders: Mapping[str, Any]

    @classmethod
    def open(cls, data: bytes | IO[bytes], uri: str, metadata: Mapping[str, str] | None = None) -> "TableFile":
        """Open a file, or its bytes; some metadata may replace its own.

        Raises:
            DataError: It is not a Parquet file.
        """
        shown = storage.public(uri)
        file = schema.open_parquet(data, shown)
        kinds = {field.name: plain_type(field.type) for field in file.schema_arrow}
        folders = {name: value for name, value in _folders(uri) if name not in kinds}
        held = {name: _FOLDER_KINDS.get(type(value), pa.string()) for name, value in folders.items()}
        return cls(shown, file, kinds | held, metadata or _metadata(file.schema_arrow), folders)

    @property
    def rows(self) -> int:
        """Number of its rows."""
        return int(self.file.metadata.num_rows)

    def read(self, columns: list[str]) -> pa.Table:
        """Read some columns; raises as ``schema.ParquetFile.read`` does."""
        return self._plain(self.file.read(self._own(columns)), self.rows)

    def batches(self, columns: list[str], rows: int) -> Iterator[pa.Table]:
        """Read some columns in pieces of some rows; raises as ``schema.ParquetFile.read`` does."""
        for part in self.file.batches(self._own(columns), rows):
            yield self._plain(part, part.num_rows)

    def look(self, name: str) -> str:
        """Return what a column that is not read holds, as text for people."""
        kind = self.kinds[name]
        if is_vector(kind):
            first = next(self.batches([name], 100))[name]
            return f"{pc.max(pc.list_value_length(first)).as_py() or 0} numbers a row"
        if pa.types.is_nested(kind):
            return "lists" if isinstance(kind, pa.ListType | pa.LargeListType | pa.FixedSizeListType) else "objects"
        if pa.types.is_null(kind):
            return "nothing"
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            return "times"
        return "numbers" if is_number(kind) else "text" if is_text(kind) else str(kind)

    def _own(self, columns: list[str]) -> list[str]:
        return [name for name in columns if name not in self.folders]

    def _plain(self, table: pa.Table, rows: int) -> pa.Table:
        found: dict[str, Any] = {name: _plain_column(table[name]) for name in table.column_names}
        given = {name: pa.array([value] * rows, self.kinds[name]) for name, value in self.folders.items()}
        return pa.table(found | given)


def _folders(uri: str) -> Iterator[tuple[str, Any]]:
    """Yield columns and values that the names of a file's folders give, as pandas and Spark write them."""
    for part in str(storage.local_path(uri) or uri).split("/")[:-1]:
        name, equals, value = map(unquote, part.partition("="))
        if equals and name:
            yield name, None if value == _NO_VALUE else _folder_value(name, value)


def _folder_value(name: str, text: str) -> Any:
    if name in _NUMBERS and text.isascii() and text.isdecimal():
        return int(text)
    if name == "recorded_at":
        with suppress(ValueError):
            return _parsed(text)
    return text


def _parsed(text: str) -> datetime:
    if not _DATE.match(text):  # Python reads also numbers, such as milliseconds since 1970, as dates
        raise ValueError
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def iso_time(text: str) -> int:
    """Return a time or date in ISO 8601 as microseconds since 1970; UTC if it has no zone.

    Raises:
        ValueError: It is none.
    """
    return (_parsed(text.strip()) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _metadata(columns: pa.Schema) -> dict[str, str]:
    recorded = columns.metadata or {}
    return {key.decode(errors="replace"): value.decode(errors="replace") for key, value in recorded.items()}


# --- types ---


def is_text(kind: pa.DataType) -> bool:
    """Return whether a column holds text."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def is_name(kind: pa.DataType) -> bool:
    """Return whether a column can hold ids: text, integers, or floats, which must be whole."""
    return is_text(kind) or is_number(kind)


def is_number(kind: pa.DataType) -> bool:
    """Return whether a column can hold whole numbers; a column without any value has the null type."""
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)


def is_vector(kind: pa.DataType) -> bool:
    """Return whether a column holds lists of numbers, or of nothing."""
    if not isinstance(kind, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
        return False
    return is_number(kind.value_type)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of a column's values without a dictionary, or an extension over lists or text."""
    if isinstance(kind, pa.DictionaryType):
        kind = kind.value_type
    if isinstance(kind, pa.UuidType):
        return pa.string()
    if isinstance(kind, pa.FixedShapeTensorType) and len(kind.shape) != 1:
        return kind
    if isinstance(kind, pa.BaseExtensionType) and (is_text(kind.storage_type) or is_vector(kind.storage_type)):
        return kind.storage_type
    return kind


def listed(kinds: Kinds) -> str:
    """Return columns and their types as text for a message."""
    return ", ".join(f"`{name}` ({kind})" for name, kind in kinds.items()) or "no column"


# --- values ---


def _plain_column(column: Column) -> Column:
    kind = plain_type(column.type)
    if isinstance(column.type, pa.UuidType):
        ids: list[Any] = column.cast(pa.binary(16)).to_pylist()
        names: Any = pa.array([None if i is None else str(uuid.UUID(bytes=i)) for i in ids], kind)
        return pa.chunked_array([names])
    return column if column.type == kind else column.cast(kind)


def vectors(column: Column) -> Column:
    """Return lists of numbers as lists of float32."""
    return column.cast(pa.large_list(pa.float32()), safe=False)


def texts(column: Column, require: Require, *, stripped: bool = True) -> Column:
    """Return names as text, without blanks around them; an empty one is null.

    Args:
        column: Text, integers or whole floats.
        require: Refuses a float that is not whole, or so large that it stands for several integers.
        stripped: False for texts that are no names, which stay unchanged.
    """
    if pa.types.is_floating(column.type):
        column = whole(column, require)
    text = column.cast(pa.string())
    if not stripped:
        return text
    text = pc.utf8_trim_whitespace(text)
    named: Column = pc.if_else(pc.equal(text, pa.scalar("")), pa.scalar(None, pa.string()), text)
    return named


def whole(column: Column, require: Require) -> Column:
    """Return numbers as 64-bit integers; NaN is null."""
    if pa.types.is_floating(column.type):
        values = without_nan(column)
        numbers = values.fill_null(pa.scalar(0.0)).to_numpy()
        good = (np.abs(numbers) < EXACT) & (numbers % 1 == 0)
        require(good, "hold text or whole numbers, as floats below 2^53", lambda row: f"holds {float(numbers[row])}")
        return values.cast(pa.int64())
    if pa.types.is_uint64(column.type):
        large = pc.greater(column, pa.scalar(2**63 - 1, pa.uint64())).fill_null(False)
        require(~large.to_numpy(), "hold numbers below 2^63", lambda row: f"holds {column[row].as_py()}")
    return column.cast(pa.int64())


def without_nan(column: Column) -> Column:
    """Return floats of 64 bits in which NaN, as pandas writes a missing value, is null."""
    values = column.cast(pa.float64())
    known: Column = pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)
    return known


def times(column: Column, require: Require) -> Column:
    """Return timestamps or dates in microseconds since 1970, UTC."""
    if not pa.types.is_null(column.type):
        kind: Any = column.type
        day = pa.types.is_date32(kind)
        factor = _DAY if day else 10**3 if pa.types.is_date64(kind) else _MICROSECONDS[kind.unit]
        numbers = (column.cast(pa.int32()) if day else column).cast(pa.int64())
        values = numbers.fill_null(pa.scalar(0)).to_numpy()
        good = (values <= (2**63 - 1) // factor) & (values >= -(2**63 - 1) // factor)
        require(good, "hold times within 290,000 years of 1970", lambda row: f"holds {values[row]} {kind}")
        values = values // 10**3 if getattr(kind, "unit", "") == "ns" else values * factor
        column = pa.chunked_array([pa.array(values, mask=numbers.is_null().to_numpy())])
    return column.cast(pa.timestamp("us", "UTC"))
