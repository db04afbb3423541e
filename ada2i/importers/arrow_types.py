"""Arrow types of columns in input files, and their conversion to the types of a feature set."""

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from ada2i.data.schema import Column

Kinds = Mapping[str, pa.DataType]  # by column of a file


def is_text(kind: pa.DataType) -> bool:
    """Return whether a column holds text."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def is_name(kind: pa.DataType) -> bool:
    """Return whether a column can hold ids: text or integers."""
    return is_text(kind) or pa.types.is_integer(kind)


def is_vector(kind: pa.DataType) -> bool:
    """Return whether a column holds lists of numbers."""
    if not isinstance(kind, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
        return False
    return pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)


def decoded(kind: pa.DataType) -> pa.DataType:
    """Return the type of a column's values, whether or not it is dictionary-encoded."""
    return kind.value_type if isinstance(kind, pa.DictionaryType) else kind


def cast(column: Column, kind: pa.DataType) -> Column:
    """Return a column in another type."""
    return column.cast(decoded(column.type)).cast(kind, safe=False)


def listed(kinds: Kinds) -> str:
    """Return columns and their types as text for a message."""
    return ", ".join(f"`{name}` ({kind})" for name, kind in kinds.items()) or "no column"


def metadata(file: pq.ParquetFile) -> dict[str, str]:
    """Return the keys and values of a Parquet schema's metadata."""
    recorded = file.schema_arrow.metadata or {}
    return {key.decode(errors="replace"): value.decode(errors="replace") for key, value in recorded.items()}
