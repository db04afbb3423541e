"""Reads audited data block by block: shards of a feature set, or files of a table, whether valid or not.

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
from ada2i.data.schema import Column, is_text
from ada2i.data.splits import normalise_split
from ada2i.importers.arrow_types import TableFile, is_name, is_vector, texts, vectors, without_nan
from ada2i.importers.source import REQUIRED, table_uris
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
        empty_labels: Labels that are empty texts, which an import refuses; null is no label.
    """

    columns: pa.Table
    vectors: Mapping[Modality, Column]
    absent: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    dataset: str | None = None
    empty_labels: int = 0


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
    """Return a table, or all tables of one format below a folder, as a source.

    Raises:
        DataError: There is no such file.
    """
    uris = table_uris(location)
    return Source(storage.public(location), None, lambda: filter(None, map(_read_file, uris)))


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


def _read_file(uri: str) -> Block | None:
    """Return a file's rows; a file without rows has no types, and counts for nothing."""
    file = TableFile.open(storage.read_source(uri), uri)
    if not file.rows:
        return None
    held = {m: name for m in MODALITIES if (name := _vector_column(m, file)) is not None}
    plain = [name for name in PLAIN if name in file.kinds and is_name(file.kinds[name])]
    table = file.read([*plain, *held.values()])
    declared = _declared(file.metadata.get("label_names", ""))
    names = {name: _texts(table[name], name) for name in plain}
    empty = 0
    if "label" in names:
        empty = names["label"].null_count - table["label"].null_count if is_text(file.kinds["label"]) else 0
        names["label"] = _renamed(names["label"], lambda label: declared.get(label, label))
    names["split"] = _splits(names.get("split"), table.num_rows)
    nothing = pa.chunked_array([pa.nulls(table.num_rows, pa.string())])
    return Block(
        pa.table({name: names.get(name, nothing) for name in PLAIN}),
        {m: vectors(table[name]) for m, name in held.items()},
        absent=tuple(name for name in REQUIRED if name not in plain),
        classes=tuple(declared.values()),
        dataset=file.metadata.get("dataset"),
        empty_labels=empty,
    )


def _vector_column(modality: Modality, file: TableFile) -> str | None:
    names = (schema.vector_column(modality), modality)
    return next((name for name in names if name in file.kinds and is_vector(file.kinds[name])), None)


def _texts(column: Column, name: str) -> Column:
    """Return a column as strings; whole floats become integers, so that classes 1 and 1.0 are the same."""
    if pa.types.is_floating(column.type):
        column = without_nan(column)
        if (column.drop_null().to_numpy() % 1 != 0).any():
            return column.cast(pa.string())
    return texts(column, lambda *_: None, stripped=name != "text")


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
