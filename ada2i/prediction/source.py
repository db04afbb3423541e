"""The source of a prediction: a feature set, or a table that is checked and cut into shards first.

A table has the columns of a table for import, but ``label`` and ``split`` may be absent or null, ``label`` also in
some rows. If the rows of each dialogue are adjacent and in order, a table of any size is read piece by piece; any
other table is sorted in memory, dialogues by their first row.

Shape letters in this file:
    N utterances of all files, concatenated     D dialogues
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ada2i import storage
from ada2i.data import schema
from ada2i.data.manifest import FeatureSet
from ada2i.data.shards import SHARD_BYTES
from ada2i.errors import DataError
from ada2i.extraction.publish import RECIPE
from ada2i.importers.arrow_types import TableFile
from ada2i.importers.checks import check_keys, check_order, optional_splits, renamed_splits, vectors_of_width
from ada2i.importers.import_rows import plain_columns
from ada2i.importers.labels import recorded_names
from ada2i.importers.rows import File, Rows
from ada2i.importers.source import checked_names, conform, table_uris
from ada2i.modalities import Modality
from ada2i.prediction.output import encode
from ada2i.prediction.records import WHOLE, Shard
from ada2i.records import Recipe

_KEYS = ("dialogue_id", "utterance_index")
_CHUNK = 8192  # rows that are checked together


@dataclass(frozen=True)
class Features:
    """A feature set as a source.

    Attributes:
        features: The set.
        split: The split to predict; ``all`` for all.
    """

    features: FeatureSet
    split: str

    @property
    def fingerprint(self) -> str:
        """The digest of its content."""
        return self.features.manifest.fingerprint

    @property
    def recipe(self) -> Recipe | None:
        """The encoders of its vectors, if known."""
        return self.features.info().recipe

    @property
    def widths(self) -> Mapping[Modality, int]:
        """The width of its vectors, by modality."""
        return self.features.manifest.widths

    def shards(self) -> tuple[Shard, ...]:
        """Return its shards unchanged.

        Raises:
            DataError: It has no such split.
        """
        manifest = self.features.manifest
        entries = manifest.shards if self.split == WHOLE else self.features.shards(self.split)
        uris = (storage.join(self.features.uri, entry.name) for entry in entries)
        return tuple(
            Shard(uri=uri, size=entry.size, sha256=entry.sha256, rows=entry.rows)
            for uri, entry in zip(uris, entries, strict=True)
        )


@dataclass(frozen=True)
class Table:
    """A table as a source.

    Attributes:
        location: The location as the caller named it.
        split: The split to predict; ``all`` for all.
    """

    location: str
    split: str

    @cached_property
    def uris(self) -> tuple[str, ...]:
        """Its files.

        Raises:
            DataError: It does not exist.
        """
        return tuple(table_uris(self.location))

    @cached_property
    def fingerprint(self) -> str:
        """Digest of all its files' bytes."""
        return storage.digest(" ".join(map(storage.source_digest, self.uris)).encode())[:32]

    @cached_property
    def keys(self) -> Rows:
        """``N`` rows without their vectors, checked.

        Raises:
            DataError: A file is damaged, lacks a column, or its dialogues are invalid.
        """
        files = tuple(part for uri in self.uris for part in _read(uri, (*_KEYS, "split")))
        source = storage.public(self.location)
        if not files:
            raise DataError(
                f"{source} must hold at least one utterance, but has no row. Check what wrote it.", uri=source
            )
        rows = Rows(source, files, pa.concat_tables([file.columns for file in files]))
        check_keys(rows, _KEYS)
        rows = optional_splits(rows)
        check_order(rows)
        self._check_split(rows)
        return rows

    @property
    def recipe(self) -> Recipe | None:
        """The encoders of its vectors, if the table records them."""
        found = self.keys.recorded(RECIPE)
        return Recipe.model_validate_json(found) if found else None

    def labels(self, model: tuple[str, ...]) -> tuple[str, ...]:
        """Return its class names by class index: the recorded ones, else the model's."""
        return recorded_names(self.keys.files) or model

    def stage(self, uri: str, widths: Mapping[Modality, int], labels: tuple[str, ...], model: str) -> tuple[Shard, ...]:
        """Check all rows and write them as shards; the same table gives the same shards.

        Args:
            uri: Folder for the shards.
            widths: Required width of the vectors, by modality.
            labels: Class names by class index.
            model: Name of the model, for messages.

        Raises:
            DataError: A vector or label is invalid.
        """
        kind = shard_schema(widths)
        rows = self._rows(kind, labels, model)
        if not _in_order(self.keys):
            rows = _sorted(pa.concat_tables(rows))
        fit = max(1, SHARD_BYTES // (4 * sum(widths.values())))
        found = []
        for number, part in enumerate(cut(rows, fit)):
            # A crash leaves shards that no request names; the next attempt writes them again, byte by byte.
            place, data = storage.join(uri, f"part-{number:05d}.parquet"), encode(part, "none")  # vectors hardly shrink
            storage.put(place, data)
            found.append(Shard(uri=place, size=len(data), sha256=storage.digest(data), rows=part.num_rows))
        return tuple(found)

    def _rows(self, kind: pa.Schema, labels: tuple[str, ...], model: str) -> Iterator[pa.Table]:
        for uri in self.uris:
            for part in _read(uri):
                rows = _checked(part, kind, labels, model)
                yield rows if self.split == WHOLE else rows.filter(pc.equal(rows["split"], pa.scalar(self.split)))

    def _check_split(self, rows: Rows) -> None:
        held = [name for name in pc.unique(rows.columns["split"]).to_pylist() if name]
        if self.split != WHOLE and self.split not in held:
            raise DataError(
                f"{rows.source} must hold rows of the split {self.split!r}, but has {', '.join(held) or 'no splits'}. "
                f"Name one of these, or predict `--split {WHOLE}`.",
                uri=rows.source,
                field="split",
            )


def shard_schema(widths: Mapping[Modality, int]) -> pa.Schema:
    """Return the schema of a staged shard: that of a feature set, but a label may be null."""
    kind = schema.shard_schema(widths)
    return kind.set(kind.get_field_index("label"), pa.field("label", pa.int32()))


def cut(parts: Iterator[pa.Table], fit: int) -> Iterator[pa.Table]:
    """Cut rows into shards: dialogues in their order, as many as fit, at least one.

    Args:
        parts: Rows in order, in pieces of any size; the sizes do not change the result.
        fit: Maximum rows of a shard.
    """
    pending: pa.Table | None = None
    for part in parts:
        pending = part if pending is None else pa.concat_tables([pending, part])
        if pending.num_rows > fit:
            *whole, (begin, _) = _bounds(pending, fit)  # the last dialogue may continue in the next part
            yield from (pending.slice(first, end - first).combine_chunks() for first, end in whole)
            pending = pending.slice(begin)
    if pending is not None and pending.num_rows:
        yield from (pending.slice(first, end - first).combine_chunks() for first, end in _bounds(pending, fit))


def _bounds(rows: pa.Table, fit: int) -> list[tuple[int, int]]:
    edges = [*_starts(rows), rows.num_rows]
    cuts = [0]
    for start, end in pairwise(edges):
        if start > cuts[-1] and end - cuts[-1] > fit:
            cuts.append(start)
    return list(pairwise([*cuts, rows.num_rows]))


def _starts(rows: pa.Table) -> list[int]:
    """Return where dialogues start: where the index is 0, as was checked."""
    found: list[int] = np.flatnonzero(rows["utterance_index"].to_numpy() == 0).tolist()
    return found


def _read(uri: str, columns: Collection[str] = ()) -> Iterator[File]:
    """Yield a file in pieces of some rows, with canonical names and types; only some columns if they are named."""
    with storage.open_source(uri) as opened:
        file, first = TableFile.open(opened, uri), 0
        if not file.rows:  # a file without rows has no types: pandas writes all its columns as null
            return
        names = checked_names(file, required=_KEYS)
        wanted = {ours: own for ours, own in names.items() if not columns or ours in columns}
        for table in file.batches(list(wanted.values()), _CHUNK):
            yield File(file.uri, conform(table, wanted, file.uri, first), names, file.metadata, first)
            first += table.num_rows


def _checked(file: File, kind: pa.Schema, labels: tuple[str, ...], model: str) -> pa.Table:
    """Return a part of a file with the columns of a staged shard."""
    rows = Rows(file.uri, (file,), file.columns)
    if not rows.columns["split"].null_count:
        rows = renamed_splits(rows)
    columns = rows.columns
    data = plain_columns(columns)
    data |= {"label": _classes(rows, labels), "split": columns["split"].fill_null(pa.scalar(""))}
    for modality, width in schema.widths_of(kind).items():
        column = schema.vector_column(modality)
        if column not in rows.names:
            raise DataError(
                f"{file.uri} must have the column `{column}` with vectors of width {width}, as those that {model} was "
                f"trained on, but has only {', '.join(rows.names)}. Add it, or use a model that does not need it.",
                uri=file.uri,
                field=column,
            )
        must = f"hold vectors of width {width}, as those that {model} was trained on"
        data[column] = vectors_of_width(rows, modality, width, must=must)
    return pa.table(data, schema=kind)


def _classes(rows: Rows, labels: tuple[str, ...]) -> Any:
    """Return class indices, null without a label."""
    label = rows.columns["label"]
    index: Any
    if pa.types.is_string(label.type):
        index = pc.index_in(label, value_set=pa.array(labels, pa.string()))
    else:
        numbers = label.fill_null(pa.scalar(-1.0)).to_numpy()
        known = np.isin(numbers, np.arange(len(labels)))
        index = pa.chunked_array([pa.array(np.where(known, numbers, 0).astype(np.int32), mask=~known)])
    rows.require(
        pc.or_(index.is_valid(), label.is_null()).to_numpy(),
        "label",
        must=f"hold a known class, one of {', '.join(labels)}, or the index of one, or be null",
        found=lambda row: f"holds {label[row].as_py()!r}",
        remedy="Correct the label, or remove the column.",
    )
    return index.cast(pa.int32())


def _sorted(rows: pa.Table) -> Iterator[pa.Table]:
    yield rows.take(row_order(rows))


def _in_order(keys: Rows) -> bool:
    """Return whether the rows of each dialogue are adjacent, its utterances in order."""
    index = keys.columns["utterance_index"].to_numpy()
    codes = np.stack([schema.codes(keys.columns[name]) for name in ("split", "dialogue_id")])
    same = (codes[:, 1:] == codes[:, :-1]).all(axis=0)
    return bool(index[0] == 0 and np.where(same, index[1:] == index[:-1] + 1, index[1:] == 0).all())


def row_order(rows: pa.Table) -> Any:
    """Return the order ``(N,)`` in which a table's rows are predicted: dialogues by first row, utterances by index."""
    codes = [schema.codes(rows[name]) for name in ("split", "dialogue_id")]
    dialogue = codes[0] * (int(codes[1].max(initial=0)) + 1) + codes[1]
    _, first, place = np.unique(dialogue, return_index=True, return_inverse=True)
    return np.lexsort((rows["utterance_index"].to_numpy(), first[place]))
