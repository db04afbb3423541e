"""Reads Parquet files into canonical column names and types; values are not changed."""

from collections.abc import Callable, Collection, Mapping
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from ada2i import storage
from ada2i.data import schema
from ada2i.errors import DataError, NotFoundError
from ada2i.importers.arrow_types import Kinds, cast, decoded, is_name, is_text, is_vector, listed, metadata
from ada2i.importers.rows import File, Rows
from ada2i.modalities import MODALITIES

if TYPE_CHECKING:
    from ada2i.data.schema import Column

REQUIRED = ("dialogue_id", "utterance_index", "label", "split")
_OPTIONAL = ("utterance_id", "speaker", "text", "recorded_at")
_VECTORS = {schema.vector_column(modality): modality for modality in MODALITIES}


def read_rows(source: str, *, vectors: bool = True) -> Rows:
    """Read a Parquet file, or all Parquet files below a folder.

    Args:
        source: A path, or any URI that fsspec opens.
        vectors: Whether there must be a vector column.

    Raises:
        DataError: There is no such file, one is damaged or lacks a column, a type is wrong, or there are no rows.
    """
    files = tuple(_read_file(uri, vectors=vectors) for uri in parquet_files(source))
    for file in files:
        _check_vector_columns(file, files[0])
        _check_label_kind(file, files[0])
    source = storage.public(source)
    rows = Rows(source, files, pa.concat_tables([file.columns for file in files]))
    if not rows.columns.num_rows:
        raise DataError(
            f"{source} must hold at least one utterance, but has no row in {len(files)} file(s). Check what wrote it.",
            uri=source,
        )
    return rows


def parquet_files(source: str) -> list[str]:
    """Return the URIs of the Parquet files at a location.

    Raises:
        DataError: The location does not exist.
    """
    try:
        return storage.source_files(source, ".parquet")
    except NotFoundError as problem:
        raise DataError(problem.message, **problem.context) from problem


def _read_file(uri: str, *, vectors: bool) -> File:
    data, uri = storage.read_source(uri), storage.public(uri)
    file, names = open_table(data, uri, vectors=vectors)
    table = schema.read_columns(file, list(names.values()), uri)
    return File(uri, conform(table, names), names, metadata(file))


def open_table(
    data: bytes | IO[bytes], uri: str, *, vectors: bool = True, required: Collection[str] = REQUIRED
) -> tuple[pq.ParquetFile, Mapping[str, str]]:
    """Open a Parquet file, and check its columns and types, but no values.

    Args:
        data: The file, or its bytes.
        uri: Their location.
        vectors: Whether there must be a vector column.
        required: Columns that it must have.

    Returns:
        The file, and its own column names, by canonical name of the columns that it has.

    Raises:
        DataError: It is not a Parquet file, lacks a column, or a type is wrong.
    """
    file = schema.open_parquet(data, uri)
    kinds = {field.name: field.type for field in file.schema_arrow}
    _check_required(uri, kinds, required)
    names = our_names(kinds)
    _check_unique(uri, file.schema_arrow.names, names)
    _check_types(uri, kinds)
    if vectors and not names.keys() & _VECTORS.keys():
        raise DataError(
            f"{uri} must hold a vector column, lists of numbers in `text_feat`, `audio_feat` or `visual_feat`, but has "
            f"only {listed(kinds)}. Add the vectors, or extract features first.",
            uri=uri,
        )
    return file, names


def our_names(kinds: Kinds) -> dict[str, str]:
    """Return a file's own column names, by canonical name of the columns that it has.

    A bare ``text``, ``audio`` or ``visual`` means vectors if it holds lists and there is no ``..._feat``; a bare
    ``text`` without lists is the transcript.
    """
    plain = [name for name in (*REQUIRED, *_OPTIONAL) if name in kinds]
    names = {name: name for name in plain if name != "text" or not is_vector(kinds[name])}
    for column, bare in _VECTORS.items():
        if column in kinds:
            names[column] = column
        elif bare in kinds and is_vector(kinds[bare]):
            names[column] = bare
    return names


# --- required properties of a file ---


def _check_required(uri: str, kinds: Kinds, required: Collection[str]) -> None:
    if missing := [name for name in required if name not in kinds]:
        raise DataError(
            f"{uri} must have the column `{missing[0]}`, but has only {listed(kinds)}. Add it, or rename the column "
            "that holds it.",
            uri=uri,
            field=missing[0],
        )


def _check_unique(uri: str, columns: list[str], names: Mapping[str, str]) -> None:
    for name in names.values():
        if (number := columns.count(name)) > 1:
            raise DataError(
                f"{uri} must have one column `{name}`, but has {number} of that name. Rename or drop the others.",
                uri=uri,
                field=name,
            )


def _check_types(uri: str, kinds: Kinds) -> None:
    for name, (fits, must) in _TYPES.items():
        if name in kinds and not fits(decoded(kinds[name])):
            raise DataError(
                f"Column `{name}` of {uri} must hold {must}, but from row 0 on holds {kinds[name]}. Convert it.",
                uri=uri,
                row=0,
                field=name,
            )


def _check_vector_columns(file: File, first: File) -> None:
    for column in _VECTORS:
        if (column in file.names) != (column in first.names):
            with_, without = (file, first) if column in file.names else (first, file)
            name = with_.names[column]
            raise DataError(
                f"{without.uri} must have the column `{name}`, as {with_.uri} has, but does not. Add it (null if an "
                "utterance lacks the modality), or import the files separately.",
                uri=without.uri,
                field=name,
            )


def _check_label_kind(file: File, first: File) -> None:
    kind, found = first.columns["label"].type, file.columns["label"].type
    if found != kind:
        raise DataError(
            f"Column `label` of {file.uri} must hold {'class names' if kind == pa.string() else 'class indices'}, as "
            f"{first.uri} does, but from row 0 on holds {found}. Write all files alike.",
            uri=file.uri,
            row=0,
            field="label",
        )


# --- types of the file and canonical types ---


def _is_optional_name(kind: pa.DataType) -> bool:
    return is_name(kind) or pa.types.is_null(kind)


def _is_label(kind: pa.DataType) -> bool:
    return is_name(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)


def _is_time(kind: pa.DataType) -> bool:
    return pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_null(kind)


def _is_transcript(kind: pa.DataType) -> bool:
    return is_text(kind) or pa.types.is_null(kind) or is_vector(kind)  # lists: the vectors of a bare `text`


# By column: the check of its type, and the allowed types in words.
_TYPES: Mapping[str, tuple[Callable[[pa.DataType], bool], str]] = {
    "dialogue_id": (is_name, "text or integers"),
    "utterance_index": (pa.types.is_integer, "integers"),
    "label": (_is_label, "class indices (integers) or class names (text)"),
    "split": (is_text, "text"),
    "utterance_id": (_is_optional_name, "text or integers"),
    "speaker": (_is_optional_name, "text or integers"),
    "text": (_is_transcript, "text or lists of numbers"),
    "recorded_at": (_is_time, "timestamps or dates"),
    **dict.fromkeys(_VECTORS, (is_vector, "lists of numbers")),
}


def conform(table: pa.Table, names: Mapping[str, str]) -> pa.Table:
    """Return the columns with canonical names and types; an optional column that the file lacks is null."""
    ours: dict[str, pa.DataType] = dict.fromkeys((*REQUIRED, *_OPTIONAL), pa.string())
    ours["utterance_index"] = pa.int64()
    ours["recorded_at"] = pa.timestamp("us", "UTC")
    if "label" in names and not is_text(decoded(table[names["label"]].type)):
        ours["label"] = pa.float64()
    ours |= {column: pa.large_list(pa.float32()) for column in _VECTORS if column in names}
    absent: Column = pa.chunked_array([pa.nulls(table.num_rows)])
    data: dict[str, Any] = {
        name: cast(table[names[name]] if name in names else absent, kind) for name, kind in ours.items()
    }
    return pa.table(data)
