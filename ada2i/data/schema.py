"""Columns of a feature shard: one row per utterance.

A shard holds the transcript as ``text``, so the vector columns are ``text_feat``, ``audio_feat`` and ``visual_feat``,
like the field's published files. A vector is null if the utterance lacks the modality. A set for regression also has
``target``, the number that a model predicts; it is null if the utterance has none.

Shape letters in this file:
    N utterances     D width of a modality's vectors     G dialogues in a split
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ada2i.data import spool
from ada2i.errors import DataError
from ada2i.modalities import MODALITIES, Modality

Column: TypeAlias = "pa.ChunkedArray[Any]"  # quoted: only the stubs know type arguments

SORT_KEYS = ("split", "dialogue_id", "utterance_index")

_PLAIN = (
    pa.field("dialogue_id", pa.string(), nullable=False),
    pa.field("utterance_index", pa.int32(), nullable=False),  # 0-based, contiguous in its dialogue
    pa.field("utterance_id", pa.string(), nullable=False),
    pa.field("speaker", pa.string()),
    pa.field("text", pa.string()),  # the transcript
    pa.field("label", pa.int32(), nullable=False),  # class index; -1: no label, so the utterance is only context
    pa.field("split", pa.string(), nullable=False),
)

TARGET = pa.field("target", pa.float32())  # optional: the last plain column

_MULTIPLE = 100  # columns may take this multiple of their file's size in memory
_LEAST_LIMIT = 512 * 2**20  # bytes of memory that the columns of any file may take
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT96": 12}  # bytes of a value in memory; 8 of others

_COUNTED = 1 << 20  # rows that are counted or coded at once


def vector_column(modality: Modality) -> str:
    """Return the name of a modality's vector column."""
    return f"{modality}_feat"


VECTOR_COLUMNS: Mapping[str, Modality] = {vector_column(modality): modality for modality in MODALITIES}


def shard_schema(widths: Mapping[Modality, int], *, targets: bool = False) -> pa.Schema:
    """Return the schema of a shard.

    Args:
        widths: Width of the vectors, by modality of the set.
        targets: Whether the set has targets.

    Returns:
        The plain columns, then one ``fixed_size_list<float32>[D]`` per modality, in the order of ``MODALITIES``.
    """
    vectors = [pa.field(vector_column(m), pa.list_(pa.float32(), widths[m])) for m in MODALITIES if m in widths]
    fields: list[pa.Field[Any]] = [*_PLAIN, *([TARGET] if targets else []), *vectors]
    return pa.schema(fields)


def widths_of(schema: pa.Schema) -> dict[Modality, int]:
    """Return the width of each modality's vectors in a shard's schema."""
    return {m: schema.field(vector_column(m)).type.list_size for m in MODALITIES if vector_column(m) in schema.names}


def with_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    """Return a table with other values in one of its columns."""
    return table.set_column(table.schema.get_field_index(name), name, values)


def pack_vectors(values: NDArray[np.float32], present: NDArray[np.bool_]) -> "pa.Array[Any]":
    """Turn dense vectors into a vector column.

    Args:
        values: ``(N, D)`` float32, with any values if the modality is missing.
        present: ``(N,)`` bool, false if the modality is missing.

    Returns:
        ``N`` fixed-size lists of width ``D``, null where not present.
    """
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1], mask=pa.array(~present))


def list_vectors(vectors: Sequence[NDArray[np.float32] | None]) -> "pa.Array[Any]":
    """Return ``N`` vectors of any widths as lists of float32, null for a missing one."""
    lengths = [0 if vector is None else len(vector) for vector in vectors]
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int64())
    flat = np.concatenate([np.zeros(0, np.float32), *(vector for vector in vectors if vector is not None)])
    missing = pa.array([vector is None for vector in vectors], pa.bool_())
    return pa.LargeListArray.from_arrays(offsets, pa.array(flat, pa.float32()), mask=missing)


def unpack_vectors(column: "pa.ChunkedArray[Any]") -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Turn a vector column of a shard into dense vectors: the inverse of ``pack_vectors``.

    Returns:
        values: ``(N, D)`` float32, zeros if the modality is missing.
        present: ``(N,)`` bool.
    """
    present = column.is_valid().to_numpy()
    values = np.zeros((len(column), column.type.list_size), np.float32)
    values[present] = flat_values(column).reshape(-1, values.shape[1])
    return values, present


def flat_values(column: "pa.ChunkedArray[Any]") -> NDArray[np.float32]:
    """Return the numbers of all non-null lists of float32, concatenated; a null number becomes NaN."""
    flat = [pc.list_flatten(chunk).to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return np.concatenate(flat) if flat else np.zeros(0, np.float32)


@dataclass(frozen=True)
class ParquetFile:
    """An open Parquet file, whose columns are read only if they are not far larger than the file.

    Attributes:
        uri: Its location, for messages.
        size: Its bytes.
        schema_arrow: Its columns.
        reader: Reads text as a dictionary, so that a repeated text takes its memory once until it is checked.
    """

    uri: str
    size: int
    schema_arrow: pa.Schema
    reader: pq.ParquetFile

    @property
    def rows(self) -> int:
        """Number of its rows."""
        return int(self.reader.metadata.num_rows)

    def read(self, columns: list[str]) -> pa.Table:
        """Read some columns, and check that their bytes are valid.

        Raises:
            DataError: The file is damaged, or the columns are far larger than it.
        """
        check_size(self.uri, self.size, self._expected(columns))
        with _translated(self.uri):
            table = self.reader.read(columns=columns)
            return self._decoded(table, sum(text_bytes(column) for column in table.columns))

    def batches(self, columns: list[str], rows: int) -> Iterator[pa.Table]:
        """Read some columns as ``read`` does, in pieces of some rows."""
        check_size(self.uri, self.size, self._expected(columns))
        total = 0
        with _translated(self.uri):
            for batch in self.reader.iter_batches(batch_size=rows, columns=columns):
                table = pa.Table.from_batches([batch])
                total += sum(text_bytes(column) for column in table.columns)
                yield self._decoded(table, total)

    def _decoded(self, table: pa.Table, texts: int) -> pa.Table:
        table.validate(full=True)
        check_size(self.uri, self.size, texts)
        for place, field in enumerate(table.schema):
            if isinstance(field.type, pa.DictionaryType):
                kind = self.schema_arrow.field(field.name).type
                kind = kind.value_type if isinstance(kind, pa.DictionaryType) else kind
                column = table[field.name].cast(field.type.value_type).cast(kind)
                table = table.set_column(place, field.with_type(kind), column)
        return table

    def _expected(self, columns: list[str]) -> int:
        """Return the bytes of some columns in memory, as the footer says; text counts as its dictionary."""
        total, footer = 0, self.reader.metadata
        for place in range(footer.num_columns):
            leaf = footer.schema.column(place)
            if leaf.path.partition(".")[0] in columns or leaf.path in columns:
                parts = [footer.row_group(group).column(place) for group in range(footer.num_row_groups)]
                width = leaf.length or _WIDTHS.get(leaf.physical_type, 8)
                total += sum(int(part.num_values) * width for part in parts)
                total += sum(part.total_uncompressed_size for part in parts if leaf.physical_type == "BYTE_ARRAY")
        return total


def check_size(uri: str, size: int, found: int) -> None:
    """Refuse a file whose columns take far more bytes in memory than its size explains."""
    if found > max(_LEAST_LIMIT, _MULTIPLE * size):
        raise DataError(
            f"{uri} must not be more than {_MULTIPLE} times as large in memory as its {size} bytes (or "
            f"{_LEAST_LIMIT >> 20} MiB), but needs {found >> 20} MiB. Write it again without such repetition.",
            uri=uri,
        )


def text_bytes(column: Column) -> int:
    """Return the bytes that a text column takes without its dictionary; 0 if it has none."""
    if not isinstance(column.type, pa.DictionaryType) or not is_text(column.type.value_type):
        return 0
    chunks: Any = column.chunks
    lengths = (pc.binary_length(chunk.dictionary.cast(pa.large_string())).take(chunk.indices) for chunk in chunks)
    return sum(pc.sum(found).as_py() or 0 for found in lengths)


def open_parquet(data: "bytes | pa.Buffer | IO[bytes]", uri: str) -> ParquetFile:
    """Open a Parquet file, or the bytes of one.

    Raises:
        DataError: The bytes are not a Parquet file.
    """
    with _translated(uri):
        opened = pa.BufferReader(data) if isinstance(data, bytes | pa.Buffer) else data
        size = opened.seek(0, 2)
        file = pq.ParquetFile(opened, pre_buffer=False)  # a pre-buffer keeps all pieces in memory
        str(file.schema_arrow)  # decodes all names
        texts = [field.name for field in file.schema_arrow if is_text(field.type)]
        reader = pq.ParquetFile(opened, pre_buffer=False, metadata=file.metadata, read_dictionary=texts)
        return ParquetFile(uri, int(size), file.schema_arrow, reader)


def is_text(kind: pa.DataType) -> bool:
    """Return whether a column holds text."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


@contextmanager
def _translated(uri: str) -> Iterator[None]:
    """Translate what pyarrow raises on damaged bytes into a ``DataError``."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError, MemoryError) as problem:
        raise DataError(
            f"{uri} must be a valid Parquet file, but cannot be read: {str(problem).rstrip('.')}. Check that it is "
            "Parquet, written and copied in full; else write it again.",
            uri=uri,
        ) from problem


def codes(names: Any) -> NDArray[np.int64]:
    """Return a number for each name of a column, ``(N,)``; nulls count as one name."""
    encoded: Any = pc.dictionary_encode(names.combine_chunks(), null_encoding="encode")
    return np.asarray(encoded.indices.to_numpy(zero_copy_only=False), dtype=np.int64)


def factorized(column: Column) -> "tuple[NDArray[np.int32], pa.Array[Any]]":
    """Return an index ``(N,)`` into the distinct names of a column without nulls, and these names."""
    starts = range(0, len(column), _COUNTED)
    distinct: list[Any] = []
    for start in starts:
        distinct.append(pc.unique(column.slice(start, _COUNTED)))
        spool.release()
    names: Any = pc.unique(pa.chunked_array(distinct, column.type))
    found = np.empty(len(column), np.int32)
    for start in starts:
        part: Any = pc.index_in(column.slice(start, _COUNTED), value_set=names)
        found[start : start + _COUNTED] = part.to_numpy()
        spool.release()
    return found, names


@dataclass(frozen=True)
class RowOrder:
    """The order of rows in shards: by split, dialogue and utterance.

    Attributes:
        ranks: ``(N,)`` integers, the place of each row.
        sizes: ``(G,)`` integers, the rows of each dialogue in a split, in this order.
        splits: ``(G,)`` integers, a number for its split.
        counted: Whether the utterances of each of these dialogues are numbered 0, 1, 2...
    """

    ranks: NDArray[Any]
    sizes: NDArray[Any]
    splits: NDArray[Any]
    counted: bool

    @classmethod
    def of(cls, keys: pa.Table) -> "RowOrder":
        """Return the order of ``N`` rows with ``SORT_KEYS``, without nulls."""
        group, dialogues, number = _groups(keys)
        sizes = np.zeros(number, group.dtype)
        for begin in range(0, len(group), _COUNTED):  # numpy copies what it counts
            sizes += np.bincount(group[begin : begin + _COUNTED], minlength=number).astype(group.dtype)
        ranks = (np.cumsum(sizes, dtype=group.dtype) - sizes)[group]
        seen, counted, begin = np.zeros(len(group), np.bool_), True, 0
        for chunk in keys[SORT_KEYS[2]].chunks:
            index, end = chunk.to_numpy(), begin + len(chunk)
            counted = counted and bool(((index >= 0) & (index < sizes[group[begin:end]])).all())
            if counted:
                ranks[begin:end] += index.astype(group.dtype)
                seen[ranks[begin:end]] = True
            begin = end
        if not seen.all():
            counted = False
            ranks[np.lexsort((keys[SORT_KEYS[2]].to_numpy(), group))] = np.arange(len(ranks), dtype=group.dtype)
        spool.release()
        held = np.flatnonzero(sizes)
        return cls(ranks, sizes[held], held // max(1, dialogues), counted)


def _groups(keys: pa.Table) -> tuple[NDArray[Any], int, int]:
    """Return a number ``(N,)`` for split and dialogue, in shard order; how many dialogues, and how many numbers."""
    dialogue, names = factorized(keys[SORT_KEYS[1]])
    split, splits = factorized(keys[SORT_KEYS[0]])
    number = len(names) * len(splits)
    kind: Any = np.int32 if max(number, keys.num_rows) < 2**31 else np.int64
    group: NDArray[Any] = _alphabetical(splits).astype(kind)[split]
    del split
    group *= len(names)
    group += _alphabetical(names).astype(kind)[dialogue]
    return group, len(names), number


def _alphabetical(names: "pa.Array[Any]") -> NDArray[np.int64]:
    """Return the place of each name in the order of their UTF-8 bytes."""
    places = np.zeros(len(names), np.int64)
    places[pc.sort_indices(names).to_numpy()] = np.arange(len(names))
    return places


def by_appearance(names: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the names ``(N,)`` of each dialogue from 0, in the order in which they first appear in it.

    Args:
        names: A number for each row's name.
        lengths: Utterances of each dialogue, in row order.
    """
    dialogue = np.repeat(np.arange(len(lengths)), lengths)
    _, first, pair = np.unique(dialogue * (names.max(initial=0) + 1) + names, return_index=True, return_inverse=True)
    numbers = np.argsort(np.argsort(first))[pair]  # counted over all rows; a dialogue's first row has its lowest
    starts = np.cumsum(lengths) - lengths
    return np.asarray(numbers - numbers[starts][dialogue], dtype=np.int64)
