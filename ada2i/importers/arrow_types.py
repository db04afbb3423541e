"""Arrow types of columns in input files, and their conversion to the types of a feature set."""

import json
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
from ada2i.data.schema import Column, is_text
from ada2i.errors import DataError
from ada2i.importers.columns import NO_CHANGES, Changes
from ada2i.importers.formats import Reader, open_reader

Kinds = Mapping[str, pa.DataType]  # by column of a file

Require = Callable[[NDArray[np.bool_], str, Callable[[int], str]], None]
"""Takes a mask of good rows, what must hold, and a function that says what a row holds; refuses the first bad row."""

EXACT = 2**53  # from here on, a float stands for several integers
_DATE = re.compile(r"\d{4}-(\d\d-|W)|\d{8}T", re.ASCII)
_MICROSECONDS = {"s": 10**6, "ms": 10**3, "us": 1, "ns": 1}
_DAY = 86_400 * 10**6  # microseconds
_NUMBERS = ("utterance_index", "label")  # columns whose values in a folder's name are numbers, if they look so
_FOLDER_KINDS = {int: pa.int64(), datetime: pa.timestamp("us", "UTC")}
_SPLIT_FILE = re.compile(r"(train|validation|valid|val|dev|test)(?:-\d+-of-\d+)?\.")  # train-00000-of-00002.parquet
_SHARD = re.compile(r"data-\d+-of-\d+\.arrow|\d{4,}\.parquet")  # below a folder with the split's name
_MOST_LISTED = 30  # columns that a message names
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class TableFile:
    """An open file of a table.

    Attributes:
        uri: Its location, for messages.
        columns: The names of its columns; a name may occur twice.
        kinds: The types of its columns without encodings and extensions, also of those that only its path names.
        metadata: The keys and values of its schema.
        folders: By column that the file lacks, the value that its path gives, as ``column=value`` or a split's name.
        own: The file's own column names, by their names here.
        packed: By vector column that it lacks, the own names of the columns that become the vectors.
    """

    uri: str
    file: Reader
    columns: list[str]
    kinds: Kinds
    metadata: Mapping[str, str]
    folders: Mapping[str, Any]
    own: Mapping[str, str]
    packed: Mapping[str, list[str]]

    @classmethod
    def open(
        cls,
        data: bytes | IO[bytes],
        uri: str,
        metadata: Mapping[str, str] | None = None,
        changes: Changes = NO_CHANGES,
    ) -> "TableFile":
        """Open a file, or its bytes; ``metadata``, if given, replaces the file's own.

        Raises:
            DataError: It is not a table of a known format, or the changes do not fit its columns.
        """
        shown = storage.public(uri)
        file = open_reader(data, shown, changes.rename)
        names = changes.renamed(file.schema_arrow.names, shown)
        own = dict(zip(names, file.schema_arrow.names, strict=True))
        packed = {column: [own[n] for n in found] for column, found in changes.packed(names, shown).items()}
        used = {name for columns in packed.values() for name in columns}
        kinds = {n: plain_type(f.type) for n, f in zip(names, file.schema_arrow, strict=True) if f.name not in used}
        folders = {name: value for name, value in _folders(uri) if name not in names}
        held = {name: _FOLDER_KINDS.get(type(value), pa.string()) for name, value in folders.items()}
        vectors = dict.fromkeys(packed, pa.large_list(pa.float32()))
        return cls(
            shown,
            file,
            names,
            {**kinds, **held, **vectors},
            metadata or _metadata(file.schema_arrow),
            folders,
            own,
            packed,
        )

    @property
    def rows(self) -> int:
        """Number of its rows."""
        return self.file.rows

    def read(self, columns: list[str]) -> pa.Table:
        """Read some columns; raises as the reader of its format does."""
        return self._plain(self.file.read(self._own(columns)), columns, self.rows, 0)

    def batches(self, columns: list[str], rows: int) -> Iterator[pa.Table]:
        """Read some columns in pieces of at most some rows; raises as ``read`` does."""
        first = 0
        for part in self.file.batches(self._own(columns), rows):
            yield self._plain(part, columns, part.num_rows, first)
            first += part.num_rows

    def describe(self, name: str) -> str:
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
        plain = [self.own[name] for name in columns if name in self.own and name not in self.packed]
        return plain + [own for name in columns for own in self.packed.get(name, ())]

    def _plain(self, table: pa.Table, columns: list[str], rows: int, first: int) -> pa.Table:
        found: dict[str, Any] = {}
        for name in columns:
            if name in self.packed:
                found[name] = self._pack(table, name, first)
            elif name in self.own:
                found[name] = _plain_column(table[self.own[name]])
        given = {name: pa.array([value] * rows, self.kinds[name]) for name, value in self.folders.items()}
        return pa.table(found | given)

    def _pack(self, table: pa.Table, name: str, first: int) -> "pa.Array[Any]":
        """Return vectors of several columns: null if all are null, and NaN for a single null."""
        parts = [self._numbers(table[own], own, first) for own in self.packed[name]]
        present = np.any([part.is_valid().to_numpy() for part in parts], axis=0)
        with np.errstate(over="ignore"):  # a number that is too large becomes infinite, and is refused later
            values = np.stack([part.to_numpy() for part in parts], axis=1).astype(np.float32)
        return schema.pack_vectors(values, present).cast(pa.large_list(pa.float32()))

    def _numbers(self, column: Column, own: str, first: int) -> Column:
        try:
            if is_text(column.type):
                column = pc.utf8_trim_whitespace(column)
            if is_text(column.type) or is_number(column.type):
                return column.cast(pa.float64(), safe=False)
            found = f"{column.type}"
        except pa.ArrowInvalid as problem:
            found = str(problem)
        raise DataError(
            f"Column `{own}` of {self.uri} must hold numbers, since it is packed into a vector, but row {first} or "
            f"one after it does not: {found}. Correct it, or narrow the pattern of `--pack`.",
            uri=self.uri,
            row=first,
            field=own,
        )


def _folders(uri: str) -> Iterator[tuple[str, Any]]:
    """Yield columns and values that a file's path gives, as pandas, Spark and Hugging Face write them."""
    *folders, file = str(storage.local_path(uri) or uri).split("/")
    if split := _SPLIT_FILE.match(file) or (
        folders and _SHARD.fullmatch(file) and _SPLIT_FILE.match(folders[-1] + ".")
    ):
        yield "split", split[1]
    for part in folders:
        name, equals, value = map(unquote, part.partition("="))
        if equals and name:
            yield name, None if value == _NO_VALUE else _folder_value(name, value)


def _folder_value(name: str, text: str) -> Any:
    if name in _NUMBERS and text.isascii() and text.isdecimal() and int(text) < 2**63:
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
    found = {key.decode(errors="replace"): value.decode(errors="replace") for key, value in recorded.items()}
    names = _class_label(found.get("huggingface", ""))
    return ({"label_names": ",".join(f"{n}={name}" for n, name in enumerate(names))} if names else {}) | found


def _class_label(text: str) -> list[str]:
    """Return the class names of ``label`` that `datasets` records in a schema; none if they do not fit a list."""
    try:
        names = json.loads(text)["info"]["features"]["label"]["names"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return []
    fits = isinstance(names, list) and all(isinstance(name, str) and not set(name) & {",", "="} for name in names)
    return names if fits else []


# --- types ---


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
    if isinstance(kind, pa.UuidType) or pa.types.is_string_view(kind):
        return pa.string()
    if isinstance(kind, pa.FixedShapeTensorType) and len(kind.shape) != 1:
        return kind
    if isinstance(kind, pa.BaseExtensionType) and (is_text(kind.storage_type) or is_vector(kind.storage_type)):
        return kind.storage_type
    return kind


def listed(kinds: Kinds) -> str:
    """Return columns and their types as text for a message."""
    shown = [f"`{name}` ({kind})" for name, kind in kinds.items()]
    more = f" and {len(shown) - _MOST_LISTED} more" if len(shown) > _MOST_LISTED else ""
    return (", ".join(shown[:_MOST_LISTED]) or "no column") + more


# --- values ---


def _plain_column(column: Column) -> Column:
    kind = plain_type(column.type)
    if isinstance(column.type, pa.UuidType):
        ids: list[Any] = column.cast(pa.binary(16)).to_pylist()
        names: Any = pa.array([None if i is None else str(uuid.UUID(bytes=i)) for i in ids], kind)
        return pa.chunked_array([names])
    if isinstance(column.type, pa.DictionaryType) and pa.types.is_string_view(column.type.value_type):
        chunks: Any = column.chunks  # no cast exists for such a dictionary
        found: Any = [chunk.dictionary.cast(kind).take(chunk.indices) for chunk in chunks]
        return pa.chunked_array(found or [pa.array([], pa.string())])
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
    """Return timestamps or dates, also as text in ISO 8601, in microseconds since 1970, UTC."""
    if is_text(column.type):
        return _iso_times(column, require)
    if not pa.types.is_null(column.type):
        kind: Any = column.type
        day = pa.types.is_date32(kind)
        factor = _DAY if day else 10**3 if pa.types.is_date64(kind) else _MICROSECONDS[kind.unit]
        numbers = (column.cast(pa.int32()) if day else column).cast(pa.int64())
        values = numbers.fill_null(pa.scalar(0)).to_numpy()
        good = (values <= (2**63 - 1) // factor) & (values >= -((2**63 - 1) // factor))
        require(good, "hold times within 290,000 years of 1970", lambda row: f"holds {values[row]} {kind}")
        values = values // 10**3 if getattr(kind, "unit", "") == "ns" else values * factor
        column = pa.chunked_array([pa.array(values, mask=numbers.is_null().to_numpy())])
    return column.cast(pa.timestamp("us", "UTC"))


def _iso_times(column: Column, require: Require) -> Column:
    good = np.ones(len(column), np.bool_)
    values: list[int | None] = [None] * len(column)
    for row, text in enumerate(column.to_pylist()):
        if text is not None and str(text).strip():
            try:
                values[row] = iso_time(str(text))
            except (ValueError, OverflowError):
                good[row] = False
    require(good, "hold times in ISO 8601, such as 2026-03-31T09:30:00Z", lambda row: f"holds {column[row].as_py()!r}")
    return pa.chunked_array([pa.array(values, pa.int64())]).cast(pa.timestamp("us", "UTC"))
