"""Reads audited data block by block: shards of a feature set, or Parquet files, whether valid or not.

Shape letters in this file:
    N rows of a block     D width of a modality's vectors
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ada2i import storage
from ada2i.data import schema
from ada2i.data.manifest import FeatureSet, Manifest, read_shard
from ada2i.data.schema import Column
from ada2i.data.splits import normalise_split
from ada2i.errors import DataError, NotFoundError
from ada2i.importers.source import REQUIRED
from ada2i.modalities import MODALITIES, Modality

PLAIN = (*REQUIRED, "speaker", "text")

ALL = "all"  # the split of rows without one


@dataclass(frozen=True)
class Block:
    """Some rows, in the order of the source, with unchanged values.

    Attributes:
        columns: ``N`` rows of ``PLAIN`` as strings; null if the source lacks the column, except splits.
        vectors: ``N`` lists of float32 by modality that the block has.
        absent: Required columns that the block lacks.
        classes: Class names that it declares, whether they occur or not.
    """

    columns: pa.Table
    vectors: Mapping[Modality, Column]
    absent: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    dataset: str | None = None


@dataclass(frozen=True)
class Source:
    """The data to audit.

    Attributes:
        manifest: The set's manifest; None for a table.
        blocks: Reads all blocks from the start.
    """

    location: str
    manifest: Manifest | None
    blocks: Callable[[], Iterator[Block]]


def feature_source(features: FeatureSet) -> Source:
    """Return a feature set as a source; each reading checks every shard against the manifest."""
    return Source(features.uri, features.manifest, lambda: _shards(features))


def table_source(location: str) -> Source:
    """Return a Parquet file, or all Parquet files below a folder, as a source.

    Raises:
        DataError: There is no such file.
    """
    try:
        uris = storage.source_files(location, ".parquet")
    except NotFoundError as problem:
        raise DataError(problem.message, **problem.context) from problem
    return Source(location, None, lambda: (_read_file(uri) for uri in uris))


def dense(column: Column) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield the vectors of each width in a column.

    Returns:
        rows: ``(n,)`` rows with a vector of the width.
        values: ``(n, D)`` float32; a null number is NaN.
    """
    lengths = pc.list_value_length(column).cast(pa.int64()).fill_null(-1).to_numpy()
    flat, held = schema.flat_values(column), lengths[lengths >= 0]
    for width in np.unique(held).tolist():
        same = held == width
        values = flat if same.all() else flat[np.repeat(same, held)]
        yield np.flatnonzero(lengths == width), values.reshape(int(same.sum()), width)


def _shards(features: FeatureSet) -> Iterator[Block]:
    manifest = features.manifest
    names = np.array(manifest.labels, dtype=object)
    for entry in manifest.shards:
        table = read_shard(features, entry)
        columns = {name: table[name].cast(pa.string()) for name in PLAIN if name != "label"}
        labels = table["label"].to_numpy()
        columns["label"] = pa.chunked_array([pa.array(names[labels], pa.string(), mask=labels < 0)])
        vectors = {m: table[schema.vector_column(m)] for m in MODALITIES if m in manifest.modalities}
        yield Block(pa.table(columns), vectors, classes=manifest.labels, dataset=manifest.dataset)


# --- tables ---


def _read_file(uri: str) -> Block:
    data, uri = storage.read_source(uri), storage.public(uri)
    file = schema.open_parquet(data, uri)
    kinds = {field.name: field.type for field in file.schema_arrow}
    homes = {m: name for m in MODALITIES if (name := _vector_home(m, kinds)) is not None}
    plain = [name for name in PLAIN if name in kinds and _is_plain(kinds[name])]
    table = schema.read_columns(file, [*plain, *homes.values()], uri)
    metadata = {key.decode(errors="replace"): value for key, value in (file.schema_arrow.metadata or {}).items()}
    declared = _declared(metadata.get("label_names", b"").decode(errors="replace"))
    texts = {name: _texts(table[name]) for name in plain}
    if "label" in texts:
        texts["label"] = _renamed(texts["label"], lambda label: declared.get(label, label))
    texts["split"] = _splits(texts.get("split"), table.num_rows)
    nothing = pa.chunked_array([pa.nulls(table.num_rows, pa.string())])
    return Block(
        pa.table({name: texts.get(name, nothing) for name in PLAIN}),
        {m: table[name].cast(pa.large_list(pa.float32()), safe=False) for m, name in homes.items()},
        absent=tuple(name for name in REQUIRED if name not in plain),
        classes=tuple(declared.values()),
        dataset=metadata["dataset"].decode(errors="replace") if "dataset" in metadata else None,
    )


def _vector_home(modality: Modality, kinds: Mapping[str, pa.DataType]) -> str | None:
    return next((name for name in (schema.vector_column(modality), modality) if _is_vector(kinds.get(name))), None)


def _is_vector(kind: pa.DataType | None) -> bool:
    if not isinstance(kind, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
        return False
    return pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)


def _is_plain(kind: pa.DataType) -> bool:
    kind = kind.value_type if isinstance(kind, pa.DictionaryType) else kind
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return text or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)


def _texts(column: Column) -> Column:
    """Return a column as strings; whole floats become integers, so that classes 1 and 1.0 are the same."""
    kind = column.type
    column = column.cast(kind.value_type) if isinstance(kind, pa.DictionaryType) else column
    if pa.types.is_floating(column.type) and (column.drop_null().to_numpy() % 1 == 0).all():
        column = column.cast(pa.int64())
    return column.cast(pa.string())


def _renamed(column: Column, rename: Callable[[Any], Any]) -> Column:
    coded = column.combine_chunks().dictionary_encode()
    names = pa.array([rename(name) for name in coded.dictionary.to_pylist()], pa.string())
    return pa.chunked_array([names.take(coded.indices)])


def _splits(column: "Column | None", rows: int) -> Column:
    """Return canonical split names, unknown names unchanged, ``ALL`` for a missing split."""
    if column is None:
        return pa.chunked_array([pa.repeat(ALL, rows)])
    return _renamed(column, lambda name: normalise_split(name) or name)


def _declared(text: str) -> dict[str, str]:
    """Return class names by label from the Parquet key ``label_names``, as far as it can be read."""
    pairs = [part.strip().partition("=") for part in text.split(",")]
    return {label: name for label, equals, name in pairs if equals}
