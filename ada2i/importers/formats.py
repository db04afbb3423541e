"""Formats of tables: which suffixes are read, and readers for CSV, JSON lines and Arrow next to that for Parquet.

A reader knows the types of all columns before it reads them, and yields rows piece by piece. CSV has no types, so a
column's meaning decides: vectors are parsed, ``label`` is a number if all its cells are, and any other cell stays text.
"""

import csv
import io
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
from numpy.typing import NDArray
from pyarrow import ipc

from ada2i.data import schema
from ada2i.data.schema import Column
from ada2i.errors import DataError
from ada2i.modalities import MODALITIES

_PIECE = 16 * 2**20  # bytes of text that are parsed at once
_HEADER = 2**20  # bytes that hold the first line of a CSV
_INTEGER = r"^\s*[-+]?\d+(\.0*)?\s*$"
_NUMBER = r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?"
_LABEL = r"^\s*-?((0|[1-9]\d*)(\.\d+)?|[1-9]\d*\.?\d*[eE][-+]?\d+)\s*$"  # no `007`, which is a name
_LIST = rf"^\s*[\[(]\s*{_NUMBER}([\s,;]+{_NUMBER})*\s*[\])]\s*$"
_NUMBERS = rf"^\s*[\[(]?\s*{_NUMBER}([\s,;]+{_NUMBER})+\s*[\])]?\s*$"
_DICTIONARY, _BATCH = 2, 3  # kinds of messages of Arrow
_VECTOR = pa.large_list(pa.float64())


class Reader(Protocol):
    """An open table."""

    @property
    def schema_arrow(self) -> pa.Schema:
        """Its columns and their types."""

    @property
    def rows(self) -> int:
        """Number of its rows."""

    def read(self, columns: list[str]) -> pa.Table:
        """Read some columns; raises ``DataError`` if it is damaged, or far larger in memory than as a file."""

    def batches(self, columns: list[str], rows: int) -> Iterator[pa.Table]:
        """Read some columns in pieces of at most some rows."""


# --- which files are tables ---

FAMILIES: Mapping[str, str] = {  # by suffix
    ".parquet": "Parquet",
    ".csv": "CSV",
    ".jsonl": "JSON lines",
    ".ndjson": "JSON lines",
    ".feather": "Arrow",
    ".arrow": "Arrow",
}
SUFFIXES = tuple(FAMILIES)

_CONVERSIONS: Mapping[str, str] = {  # by the suffix of another format, the expression that makes a frame of pandas
    ".xlsx": "pandas.read_excel({name!r})",
    ".xls": "pandas.read_excel({name!r})",
    ".ods": "pandas.read_excel({name!r})",
    ".tsv": "pandas.read_csv({name!r}, sep='\\t', dtype={{'dialogue_id': str}})",
    ".txt": "pandas.read_csv({name!r}, sep='\\t', dtype={{'dialogue_id': str}})",
    ".json": "pandas.read_json({name!r}, dtype=False)",
    ".pkl": "pandas.read_pickle({name!r})",
    ".pickle": "pandas.read_pickle({name!r})",
    ".npz": "pandas.DataFrame({{n: list(a) for n, a in numpy.load({name!r}).items()}})",
    ".npy": "pandas.DataFrame({{'text_feat': list(numpy.load({name!r}))}})",
    ".db": "pandas.read_sql('SELECT * FROM utterances', sqlite3.connect({name!r}))",
    ".sqlite": "pandas.read_sql('SELECT * FROM utterances', sqlite3.connect({name!r}))",
    ".sqlite3": "pandas.read_sql('SELECT * FROM utterances', sqlite3.connect({name!r}))",
    ".h5": "pandas.read_hdf({name!r})",
    ".hdf5": "pandas.read_hdf({name!r})",
    ".orc": "pandas.read_orc({name!r})",
    ".csv.gz": "pandas.read_csv({name!r}, dtype={{'dialogue_id': str}})",
    ".jsonl.gz": "pandas.read_json({name!r}, lines=True, dtype=False)",
    ".json.gz": "pandas.read_json({name!r}, dtype=False)",
}
_PICKLES = (".pkl", ".pickle")


def suffix_of(uri: str) -> str:
    """Return the suffix of a table's name in lower case; empty if it is no table's."""
    name = _name(uri).lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def conversion(uri: str) -> str:
    """Return a sentence with the line of Python that converts a file; empty if its suffix is unknown."""
    name = _name(uri)
    found = next((suffix for suffix in _CONVERSIONS if name.lower().endswith(suffix)), None)
    if found is None:
        return ""
    line = f"{_CONVERSIONS[found].format(name=name)}.to_parquet({name[: -len(found)] + '.parquet'!r})"
    pickle = " if you trust the file; `ada2i import pickle` reads published pickles" if found in _PICKLES else ""
    return f"Convert it in Python with `{line}`{pickle}."


def _name(uri: str) -> str:
    # In paths and in keys of S3, `?` is an ordinary character.
    path = uri.partition("?")[0] if uri.startswith(("http://", "https://")) else uri
    return path.rstrip("/").rpartition("/")[2]


# --- opening ---


def open_reader(data: bytes | IO[bytes], uri: str, meanings: Mapping[str, str]) -> Reader:
    """Open a table by its suffix; without a known one, by its first bytes.

    Args:
        data: The file, open for random access, or its bytes.
        uri: Its location, for messages.
        meanings: Canonical names of columns of a CSV, by the file's own names; by default equal.

    Raises:
        DataError: It is not a table, or damaged.
    """
    opened = io.BytesIO(data) if isinstance(data, bytes) else data
    size = opened.seek(0, 2)
    opened.seek(0)
    head = opened.read(8)
    family = FAMILIES.get(suffix_of(uri)) or ("Parquet" if head[:4] == b"PAR1" else "Arrow" * (head[:6] == b"ARROW1"))
    opened.seek(0)
    if family == "Parquet":
        return schema.open_parquet(data, uri)
    if not family:
        todo = conversion(uri) or "Convert it to one of these."
        raise DataError(f"{uri} must be a table ({', '.join(SUFFIXES)}), but its name ends otherwise. {todo}", uri=uri)
    with _translated(uri, family):
        if not size:
            raise pa.ArrowInvalid("it is empty")
        return _OPENERS[family](_File(uri, opened, size, family), meanings)


@dataclass(frozen=True)
class _File:
    uri: str
    data: IO[bytes]
    size: int
    family: str

    def native(self) -> pa.NativeFile:
        self.data.seek(0)
        return pa.PythonFile(self.data, "r")  # type: ignore[arg-type]  # the stubs miss IO


@dataclass(frozen=True)
class _Pieces:
    """A reader of a file that is read from its start, piece by piece.

    Attributes:
        pieces: Yields tables with some columns, and the number of their first row.
    """

    file: _File
    schema_arrow: pa.Schema
    rows: int
    pieces: Callable[[list[str]], Iterator[pa.Table]]

    def read(self, columns: list[str]) -> pa.Table:
        """Read some columns."""
        return pa.concat_tables([self._empty(columns), *self.batches(columns, self.rows or 1)])

    def batches(self, columns: list[str], rows: int) -> Iterator[pa.Table]:
        """Read some columns in pieces of at most some rows."""
        total = 0
        with _translated(self.file.uri, self.file.family):
            for piece in self.pieces(columns):
                table = piece.select(columns)
                table.validate(full=True)
                total += table.nbytes + sum(schema.text_bytes(column) for column in table.columns)
                schema.check_size(self.file.uri, self.file.size, total)
                yield from (table.slice(start, rows) for start in range(0, table.num_rows, rows))

    def _empty(self, columns: list[str]) -> pa.Table:
        return pa.schema([self.schema_arrow.field(name) for name in columns]).empty_table()


@contextmanager
def _translated(uri: str, family: str) -> Iterator[None]:
    """Translate what readers raise on damaged bytes into a ``DataError``."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError, MemoryError, struct.error, IndexError) as problem:
        found = " ".join(str(problem).split())[:300].rstrip(".")
        raise DataError(
            f"{uri} must be valid {family}{_MUST.get(family, '')}, but cannot be read: {found}. Correct it, or write "
            "it again.",
            uri=uri,
        ) from problem


_MUST = {
    "CSV": " in UTF-8 with the same number of cells in each line",
    "JSON lines": " in UTF-8, one object in each line, with one type in each column",
}


# --- Arrow: files of Feather and IPC, and streams as `datasets` writes them ---


def _open_arrow(file: _File, _: Mapping[str, str]) -> Reader:
    if file.data.read(4) == b"FEA1":
        raise pa.ArrowInvalid("it is Feather of version 1; pandas.read_feather and to_parquet convert it")
    batches = _arrow_file if file.native().read(6) == b"ARROW1" else _arrow_stream
    held, _all = batches(file, None)
    str(held)  # decodes all names
    schema.check_size(file.uri, file.size, _declared(file, stream=batches is _arrow_stream))
    rows = sum(batch.num_rows for batch in batches(file, [0])[1])

    def pieces(columns: list[str]) -> Iterator[pa.Table]:
        places = sorted(held.get_field_index(name) for name in columns) or [0]
        for batch in batches(file, places)[1]:
            yield pa.Table.from_batches([batch])

    return _Pieces(file, held, rows, pieces)


def _arrow_file(file: _File, places: list[int] | None) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    reader = ipc.open_file(file.native(), options=ipc.IpcReadOptions(included_fields=places))
    return reader.schema, (reader.get_batch(number) for number in range(reader.num_record_batches))


def _arrow_stream(file: _File, places: list[int] | None) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    reader = ipc.open_stream(file.native(), options=ipc.IpcReadOptions(included_fields=places))
    return reader.schema, iter(reader)


def _declared(file: _File, *, stream: bool) -> int:
    """Return the bytes that the compressed buffers of all messages take in memory, as each buffer declares."""
    total = 0
    for message in (_messages if stream else _listed_messages)(file):
        for place, length in _buffers(bytes(message.metadata)):
            head = bytes(message.body or b"")[place : place + 8] if length > 8 else b""
            total += max(0, int.from_bytes(head, "little", signed=True))
    return total


def _messages(file: _File) -> Iterator[Any]:
    yield from iter(ipc.MessageReader.open_stream(file.native()).read_next_message, None)


def _listed_messages(file: _File) -> Iterator[Any]:
    """Yield the messages that the footer of a file lists."""
    source = file.native()
    source.seek(file.size - 10)
    size = int.from_bytes(source.read(4), "little")
    source.seek(file.size - 10 - size)
    footer = _Table.root(source.read(size))
    for number in (2, 3):  # dictionaries, rows
        for offset, *_ in footer.structs(number, "<qi4xq"):
            source.seek(offset)
            yield ipc.read_message(source)


def _buffers(data: bytes) -> Iterator[tuple[int, ...]]:
    """Yield place and length of the compressed buffers of a message."""
    message = _Table.root(data)
    kind = data[message.field(1)] if message.field(1) else 0
    if kind not in (_BATCH, _DICTIONARY):
        return
    batch = message.table(2).table(1) if kind == _DICTIONARY else message.table(2)
    if batch.field(3):  # its compression
        yield from batch.structs(2, "<qq")


@dataclass(frozen=True)
class _Table:
    """A table in the format FlatBuffers, in which Arrow writes its messages' headers; no library reads it by itself."""

    data: bytes
    place: int

    @classmethod
    def root(cls, data: bytes) -> "_Table":
        return cls(data, cls(data, 0).number(0))

    def number(self, place: int) -> int:
        return place + int(struct.unpack_from("<I", self.data, place)[0])

    def field(self, number: int) -> int:
        """Return the place of a field; 0 if it is absent."""
        fields = self.place - struct.unpack_from("<i", self.data, self.place)[0]
        slot = 4 + 2 * number
        known = slot < struct.unpack_from("<H", self.data, fields)[0]
        offset = struct.unpack_from("<H", self.data, fields + slot)[0] if known else 0
        return self.place + offset if offset else 0

    def table(self, number: int) -> "_Table":
        return _Table(self.data, self.number(self.field(number)))

    def structs(self, number: int, kind: str) -> Iterator[tuple[int, ...]]:
        if self.field(number):
            vector = self.number(self.field(number))
            for row in range(struct.unpack_from("<I", self.data, vector)[0]):
                yield struct.unpack_from(kind, self.data, vector + 4 + struct.calcsize(kind) * row)


# --- JSON lines ---


def _open_json(file: _File, _: Mapping[str, str]) -> Reader:
    if file.data.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[":
        stem = _name(file.uri)
        line = f"pandas.read_json({stem!r}, dtype=False).to_parquet({stem.rpartition('.')[0] + '.parquet'!r})"
        raise DataError(
            f"{file.uri} must hold one JSON object in each line, but holds an array. Convert it in Python with "
            f"`{line}`.",
            uri=file.uri,
        )
    kinds, rows = pa.schema([]), 0
    for text, first in _json_texts(file):
        table = _parsed_json(text, first, None)
        plain = [(f.name, pa.string() if pa.types.is_timestamp(f.type) else f.type) for f in table.schema]
        kinds = pa.unify_schemas([kinds, pa.schema(plain)], promote_options="permissive")
        rows += table.num_rows

    def pieces(columns: list[str]) -> Iterator[pa.Table]:
        wanted = pa.schema([kinds.field(name) for name in columns or kinds.names[:1]])
        for text, first in _json_texts(file):
            yield _parsed_json(text, first, wanted)

    return _Pieces(file, kinds, rows, pieces)


def _pieces_of(file: _File, *, quoted: bool = False) -> Iterator[bytes]:
    """Yield the file in pieces of whole lines; of CSV, whose quotes may enclose line ends, of whole rows."""
    file.data.seek(0)
    while text := file.data.read(_PIECE):
        text += file.data.readline()
        odd = quoted and text.count(b'"') % 2
        while odd and (line := file.data.readline()):
            text, odd = text + line, (odd + line.count(b'"')) % 2
        if text.strip():
            yield text


def _native(text: bytes) -> Any:
    """Return a copy outside of Python: if Arrow's threads release Python's own bytes at its end, the process aborts."""
    copy = pa.BufferOutputStream()
    copy.write(text)
    return pa.BufferReader(copy.getvalue())


def _json_texts(file: _File) -> Iterator[tuple[bytes, int]]:
    """Yield pieces of the file, with the number of the first line of each."""
    first = 0
    for text in _pieces_of(file):
        yield text, first
        first += text.count(b"\n")


_HALF = re.compile(rb"\\u[dD][89a-fA-F]")  # an escape of a surrogate, in a pair or alone
# An escape: a pair of surrogates, one alone, or any other.
_ESCAPE = re.compile(rb"(?:\\u[dD][89abAB]\w\w\\u[dD][c-fC-F]\w\w)|(\\u[dD][89a-fA-F]\w\w)|\\.", re.DOTALL)


def _whole_characters(text: bytes) -> bytes:
    """Replace each half of a character, which Arrow refuses, by U+FFFD, as tables of recordings have it."""
    # Text in other scripts may be all escapes, so only text with surrogates is taken apart.
    return _ESCAPE.sub(lambda found: rb"\ufffd" if found[1] else found[0], text) if _HALF.search(text) else text


def _parsed_json(text: bytes, first: int, wanted: pa.Schema | None) -> pa.Table:
    options = pa_json.ParseOptions(
        explicit_schema=wanted, unexpected_field_behavior="infer" if wanted is None else "ignore"
    )
    try:
        blocks = pa_json.ReadOptions(use_threads=False, block_size=len(text) + 1)
        return pa_json.read_json(_native(_whole_characters(text)), read_options=blocks, parse_options=options)
    except pa.ArrowInvalid as problem:
        before, mark, row = str(problem).rpartition(" in row ")
        place = f"{mark}{first + int(row)}" if mark and row.isdecimal() else ""
        raise pa.ArrowInvalid(f"{before}{place}" if place else str(problem)) from problem


# --- CSV ---


def _open_csv(file: _File, meanings: Mapping[str, str]) -> Reader:
    source = _Csv(file, meanings)
    rows, kinds = source.scanned
    return _Pieces(file, pa.schema([(name, kinds.get(name, pa.string())) for name in source.names]), rows, source.typed)


@dataclass(frozen=True)
class _Csv:
    file: _File
    meanings: Mapping[str, str]

    @cached_property
    def _head(self) -> tuple[list[str], str]:
        """Its column names, and its separator: the one that the first line holds most often."""
        self.file.data.seek(0)
        text = self.file.data.read(_HEADER).decode("utf-8-sig", errors="ignore")
        mark = max(",;\t", key=text.partition("\n")[0].count)
        return next(csv.reader(io.StringIO(text, newline=""), delimiter=mark), []), mark

    @property
    def names(self) -> list[str]:
        return self._head[0]

    def texts(self, columns: list[str]) -> Iterator[pa.Table]:
        """Yield some columns as text; an empty cell is null."""
        names, mark = self._head
        convert = pa_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            strings_can_be_null=True,
            null_values=[""],
            include_columns=columns or names[:1],
        )
        parse, first, header = pa_csv.ParseOptions(delimiter=mark, newlines_in_values=True), 0, 1
        for text in _pieces_of(self.file, quoted=True):
            read = pa_csv.ReadOptions(
                use_threads=False,  # with threads, an error does not name its row
                column_names=names,
                skip_rows_after_names=header,
                block_size=len(text) + 1,
            )
            try:
                table = pa_csv.read_csv(_native(text), read, parse, convert).combine_chunks()
            except pa.ArrowInvalid as problem:
                begin = first - header - 1  # Arrow counts from 1, and the header
                shown = re.sub(r"Row #(\d+)", lambda found: f"row {int(found[1]) + begin}", str(problem))  # noqa: B023
                raise pa.ArrowInvalid(shown) from problem
            yield table
            first, header = first + table.num_rows, 0

    @cached_property
    def scanned(self) -> tuple[int, dict[str, pa.DataType]]:
        """The number of rows, and the types of the columns that are not text."""
        once = [name for name in self.names if self.names.count(name) == 1]
        means = {name: self.meanings.get(name, name) for name in once}
        guessed = {name: _PATTERNS[ours] for name, ours in means.items() if ours in _PATTERNS}
        fits, held, rows = dict.fromkeys(guessed, True), dict.fromkeys(guessed, False), 0
        for part in self.texts(list(guessed)):
            rows += part.num_rows
            for name, (pattern, _) in guessed.items():
                cells = part[name].drop_null()
                fits[name] = fits[name] and pc.all(pc.match_substring_regex(cells, pattern)).as_py() is not False
                held[name] = held[name] or len(cells) > 0
        kinds = {name: kind for name, (_, kind) in guessed.items() if fits[name] and held[name]}
        kinds |= {name: pa.int64() for name, ours in means.items() if ours == "utterance_index"}
        return rows, kinds | {name: _VECTOR for name, ours in means.items() if ours in schema.VECTOR_COLUMNS}

    def typed(self, columns: list[str]) -> Iterator[pa.Table]:
        """Yield some columns with their types."""
        first, (_, kinds) = 0, self.scanned
        for table in self.texts(columns):
            data = {name: table[name] for name in table.column_names}
            for name in (name for name in data if name in kinds):
                data[name] = _converted(data[name], kinds[name], _Place(self.file.uri, name, first))
            yield pa.table(data)
            first += table.num_rows


_PATTERNS: Mapping[str, tuple[str, pa.DataType]] = {  # columns whose cells decide their type
    "label": (_LABEL, pa.float64()),
    "target": (rf"^\s*{_NUMBER}\s*$", pa.float64()),
    "text": (_LIST, _VECTOR),  # with brackets: a transcript may consist of numbers
    **{m: (_NUMBERS, _VECTOR) for m in MODALITIES if m != "text"},
}


@dataclass(frozen=True)
class _Place:
    """Where cells come from: a column of a file, and the number of its first row."""

    uri: str
    name: str
    first: int

    def require(self, good: NDArray[np.bool_], cells: Column, must: str, remedy: str) -> None:
        if not good.all():
            row = int(np.argmin(good))
            shown = str(cells[row].as_py())
            raise DataError(
                f"Column `{self.name}` of {self.uri} must {must}, but row {self.first + row} holds "
                f"{shown[:60] + '...' * (len(shown) > 60)!r}. {remedy}",
                uri=self.uri,
                row=self.first + row,
                field=self.name,
            )


def _converted(cells: Column, kind: pa.DataType, place: _Place) -> Column:
    if kind == _VECTOR:
        return parsed_vectors(cells, place)
    if pa.types.is_integer(kind):
        good = pc.match_substring_regex(cells, _INTEGER).fill_null(True).to_numpy()
        place.require(good, cells, "hold integers", "Correct the cell.")
        cells = pc.replace_substring_regex(cells, r"\.0*\s*$", "")
    return pc.utf8_trim_whitespace(cells).cast(kind)


def parsed_vectors(cells: Column, place: _Place) -> Column:
    """Return the vectors of cells of text: a JSON list, or numbers between blanks, commas or semicolons."""
    text = pc.replace_substring_regex(cells, r"np\.float\d+\(([^()]*)\)", r"\1")  # as numpy 2 prints a list of numbers
    text = pc.utf8_trim(text, "[]() \t\r\n")
    place.require(
        ~_mixed(text),
        cells,
        "hold numbers with points for decimals, between one kind of separators",
        "Write a JSON list such as [0.5, 1.25].",
    )
    filled = text.fill_null(pa.scalar(""))
    words: Any = pc.split_pattern_regex(filled, r"\s*[,;]\s*|\s+")
    empty = pc.equal(filled, pa.scalar("")).to_numpy()
    lengths = np.where(empty, 0, pc.list_value_length(words).to_numpy())
    flat = pc.list_flatten(words.filter(pa.array(~empty)))
    try:
        numbers = flat.cast(pa.float64())
    except pa.ArrowInvalid:
        fine = pc.match_substring_regex(flat, rf"^({_NUMBER}|[nN]a[nN]|[-+]?inf)$").combine_chunks()
        good = np.ones(len(cells), np.bool_)
        owners = np.repeat(np.arange(len(cells)), lengths)
        good[owners[~fine.to_numpy(zero_copy_only=False)]] = False
        place.require(
            good,
            cells,
            "hold a JSON list or numbers between blanks, commas or semicolons",
            "Correct the cell; of an array of numpy write `list(vector)`, since numpy shortens it.",
        )
        raise
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    missing = cells.is_null().combine_chunks()
    found: Any = pa.LargeListArray.from_arrays(pa.array(offsets), numbers.combine_chunks(), mask=missing)  # type: ignore[call-overload]
    return pa.chunked_array([found])


def _mixed(text: Column) -> NDArray[np.bool_]:
    """Return which cells have two kinds of separators: one kind may be decimal commas."""
    comma, spaced, tight = (pc.match_substring_regex(text, pattern) for pattern in (",", r",\s", r",\S"))
    blank = pc.match_substring_regex(text, r"[^\s,;]\s+[^\s,;]")  # between numbers, without a comma
    wrong = pc.or_(pc.and_(comma, pc.or_(pc.match_substring(text, ";"), blank)), pc.and_(spaced, tight))
    return np.asarray(wrong.fill_null(False).to_numpy())


_OPENERS: Mapping[str, Callable[[_File, Mapping[str, str]], Reader]] = {
    "Arrow": _open_arrow,
    "JSON lines": _open_json,
    "CSV": _open_csv,
}
