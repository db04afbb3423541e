"""Reads Parquet files of anyone's making: columns under our names and in our types, values as they are."""

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ada2i import storage
from ada2i.data import schema
from ada2i.data.rows import Column, File, Rows
from ada2i.errors import DataError, NotFoundError
from ada2i.modalities import MODALITIES

REQUIRED = ("dialogue_id", "utterance_index", "label", "split")
_OPTIONAL = ("utterance_id", "speaker", "text")
_VECTORS = {schema.vector_column(modality): modality for modality in MODALITIES}

Kinds = Mapping[str, pa.DataType]  # by column of a file


def read_rows(source: str) -> Rows:
    """Read a Parquet file, or all below a folder.

    Args:
        source: A path, or any URI that fsspec opens.

    Raises:
        DataError: There is no such file, one is damaged or lacks a column, a type is wrong, or there is no row.
    """
    try:
        uris = storage.source_files(source, ".parquet")
    except NotFoundError as problem:
        raise DataError(problem.message, **problem.context) from problem
    files = tuple(_read_file(uri) for uri in uris)
    for file in files:
        _check_vector_columns(file, files[0])
        _check_label_kind(file, files[0])
    rows = Rows(source, files, pa.concat_tables([file.columns for file in files]))
    if not rows.columns.num_rows:
        raise DataError(
            f"{source} must hold at least one utterance, but has no row in {len(files)} file(s). Check what wrote it.",
            uri=source,
        )
    return rows


def _read_file(uri: str) -> File:
    file = schema.open_parquet(storage.read_source(uri), uri)
    kinds = {field.name: field.type for field in file.schema_arrow}
    _check_required(uri, kinds)
    names = _names(kinds)
    _check_unique(uri, file.schema_arrow.names, names)
    _check_types(uri, kinds)
    if not names.keys() & _VECTORS.keys():
        raise DataError(
            f"{uri} must hold a vector column, lists of numbers in `text_feat`, `audio_feat` or `visual_feat`, but has "
            f"only {_listed(kinds)}. Add the vectors, or extract features first.",
            uri=uri,
        )
    table = schema.read_columns(file, list(names.values()), uri)
    return File(uri, _conform(table, names), names, _metadata(file))


def _names(kinds: Kinds) -> dict[str, str]:
    """Return, by our name of a column that a file has, the file's own.

    A bare ``text``, ``audio`` or ``visual`` serves as vectors where it holds lists and there is no ``..._feat``; a bare
    ``text`` without lists is the transcript.
    """
    plain = [name for name in (*REQUIRED, *_OPTIONAL) if name in kinds]
    names = {name: name for name in plain if name != "text" or not _is_vector(kinds[name])}
    for column, bare in _VECTORS.items():
        if column in kinds:
            names[column] = column
        elif bare in kinds and _is_vector(kinds[bare]):
            names[column] = bare
    return names


# --- what a file must be ---


def _check_required(uri: str, kinds: Kinds) -> None:
    if missing := [name for name in REQUIRED if name not in kinds]:
        raise DataError(
            f"{uri} must have the column `{missing[0]}`, but has only {_listed(kinds)}. Add it, or rename the column "
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
        if name in kinds and not fits(_decoded(kinds[name])):
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
                f"{without.uri} must have the column `{name}`, as {with_.uri} has, but has not. Add it (null where an "
                "utterance lacks the modality), or import the files apart.",
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


# --- types: theirs and ours ---


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_name(kind: pa.DataType) -> bool:
    return _is_text(kind) or pa.types.is_integer(kind)


def _is_optional_name(kind: pa.DataType) -> bool:
    return _is_name(kind) or pa.types.is_null(kind)


def _is_label(kind: pa.DataType) -> bool:
    return _is_name(kind) or pa.types.is_floating(kind)


def _is_vector(kind: pa.DataType) -> bool:
    if not isinstance(kind, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
        return False
    return pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)


def _is_transcript(kind: pa.DataType) -> bool:
    return _is_text(kind) or pa.types.is_null(kind) or _is_vector(kind)  # lists: the vectors of a bare `text`


# By column: what its type must satisfy, and that in words.
_TYPES: Mapping[str, tuple[Callable[[pa.DataType], bool], str]] = {
    "dialogue_id": (_is_name, "text or integers"),
    "utterance_index": (pa.types.is_integer, "integers"),
    "label": (_is_label, "class indices (integers) or class names (text)"),
    "split": (_is_text, "text"),
    "utterance_id": (_is_optional_name, "text or integers"),
    "speaker": (_is_optional_name, "text or integers"),
    "text": (_is_transcript, "text or lists of numbers"),
    **dict.fromkeys(_VECTORS, (_is_vector, "lists of numbers")),
}


def _conform(table: pa.Table, names: Mapping[str, str]) -> pa.Table:
    """Return the columns under our names and in our types; an optional one that the file lacks is null."""
    ours: dict[str, pa.DataType] = dict.fromkeys((*REQUIRED, *_OPTIONAL), pa.string())
    ours["utterance_index"] = pa.int64()
    ours["label"] = pa.string() if _is_text(_decoded(table["label"].type)) else pa.float64()
    ours |= {column: pa.large_list(pa.float32()) for column in _VECTORS if column in names}
    absent: Column = pa.chunked_array([pa.nulls(table.num_rows)])
    data: dict[str, Any] = {
        name: _cast(table[names[name]] if name in names else absent, kind) for name, kind in ours.items()
    }
    return pa.table(data)


def _cast(column: Column, kind: pa.DataType) -> Column:
    return column.cast(_decoded(column.type)).cast(kind, safe=False)


def _decoded(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if isinstance(kind, pa.DictionaryType) else kind


def _listed(kinds: Kinds) -> str:
    return ", ".join(f"`{name}` ({kind})" for name, kind in kinds.items()) or "no column"


def _metadata(file: pq.ParquetFile) -> dict[str, str]:
    recorded = file.schema_arrow.metadata or {}
    return {key.decode(errors="replace"): value.decode(errors="replace") for key, value in recorded.items()}
