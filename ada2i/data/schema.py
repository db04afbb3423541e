"""Columns of a feature shard: one row per utterance.

A shard holds the transcript as ``text``, so the vector columns are ``text_feat``, ``audio_feat`` and ``visual_feat``,
like the field's published files. A vector is null if the utterance lacks the modality.

Shape letters in this file:
    N utterances     D width of a modality's vectors
"""

from collections.abc import Mapping
from typing import IO, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

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

_UNSOUND = (pa.ArrowException, OSError, UnicodeDecodeError)  # what pyarrow raises on damaged bytes


def vector_column(modality: Modality) -> str:
    """Return the name of a modality's vector column."""
    return f"{modality}_feat"


def shard_schema(widths: Mapping[Modality, int]) -> pa.Schema:
    """Return the schema of a shard.

    Args:
        widths: Width of the vectors, by modality of the set.

    Returns:
        The plain columns, then one ``fixed_size_list<float32>[D]`` per modality, in the order of ``MODALITIES``.
    """
    vectors = [pa.field(vector_column(m), pa.list_(pa.float32(), widths[m])) for m in MODALITIES if m in widths]
    fields: list[pa.Field[Any]] = [*_PLAIN, *vectors]
    return pa.schema(fields)


def widths_of(schema: pa.Schema) -> dict[Modality, int]:
    """Return the width of each modality's vectors in a shard's schema."""
    return {m: schema.field(vector_column(m)).type.list_size for m in MODALITIES if vector_column(m) in schema.names}


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


def open_parquet(data: "bytes | pa.Buffer | IO[bytes]", uri: str) -> pq.ParquetFile:
    """Open a Parquet file, or the bytes of one.

    Raises:
        DataError: The bytes are not a Parquet file.
    """
    try:
        opened = pa.BufferReader(data) if isinstance(data, bytes | pa.Buffer) else data
        file = pq.ParquetFile(opened, pre_buffer=False)  # with it, reading by pieces keeps all of them in memory
        str(file.schema_arrow)  # decodes all names
    except _UNSOUND as problem:
        raise _damaged(uri, problem) from problem
    return file


def read_columns(file: pq.ParquetFile, columns: list[str], uri: str) -> pa.Table:
    """Read some columns of an open Parquet file, and check that its bytes are valid.

    Raises:
        DataError: The file is damaged.
    """
    try:
        table = file.read(columns=columns)
        table.validate(full=True)
    except _UNSOUND as problem:
        raise _damaged(uri, problem) from problem
    return table


def _damaged(uri: str, problem: Exception) -> DataError:
    return DataError(
        f"{uri} must be a valid Parquet file, but cannot be read: {str(problem).rstrip('.')}. Check that it is "
        "Parquet, written and copied in full; else write it again.",
        uri=uri,
    )


def codes(names: Any) -> NDArray[np.int64]:
    """Return a number for each name of a column, ``(N,)``; nulls count as one name."""
    encoded: Any = pc.dictionary_encode(names.combine_chunks(), null_encoding="encode")
    return np.asarray(encoded.indices.to_numpy(zero_copy_only=False), dtype=np.int64)


def by_appearance(names: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the names ``(N,)`` of each dialogue from 0, in the order in which they first appear in it.

    Args:
        names: A number for each row's name.
        lengths: Utterances of each dialogue, in row order.
    """
    dialogue = np.repeat(np.arange(len(lengths)), lengths)
    _, first, pair = np.unique(dialogue * (names.max(initial=0) + 1) + names, return_index=True, return_inverse=True)
    numbers = np.argsort(np.argsort(first))[pair]  # over all rows; a dialogue's first row has its lowest
    starts = np.cumsum(lengths) - lengths
    return np.asarray(numbers - numbers[starts][dialogue], dtype=np.int64)
