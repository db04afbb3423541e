"""Tables of vectors that identify their utterances by keys, and how they are joined with a corpus's rows.

A key is (dialogue, utterance), or (split, dialogue, utterance) if the table has splits; it is never a row position.

Shape letters in this file:
    N utterances of the corpus     K rows of the table
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ada2i import storage
from ada2i.data import schema, spool
from ada2i.data.schema import Column
from ada2i.data.splits import normalise_split
from ada2i.errors import DataError
from ada2i.importers.arrow_types import Kinds, TableFile, listed, texts, vectors
from ada2i.importers.checks import check_keys, check_vectors, renamed_splits
from ada2i.importers.rows import Bools, File, Rows
from ada2i.importers.source import check_types, our_names, require_value, store, table_files
from ada2i.modalities import MODALITIES, Modality

Integers = NDArray[np.integer[Any]]

_KEYS = 1 << 20  # that are looked up at once

SPELLINGS: Mapping[str, tuple[str, ...]] = {  # by canonical name of a key, its names in tables
    "split": ("split", "Split"),
    "dialogue_id": ("dialogue_id", "Dialogue_ID"),
    "utterance_index": ("utterance_index",),
    "utterance_id": ("utterance_id", "Utterance_ID"),
}


@dataclass(frozen=True)
class KeyedVectors:
    """One modality's vectors with the keys of their utterances.

    Attributes:
        rows: ``K`` rows of ``split`` (if ``by_split``), ``dialogue_id``, ``utterance_index`` and a vector column. Here
            ``utterance_index`` holds the text of whichever column identifies the utterance.
        modality: The modality of the vectors.
        key: The corpus's column that identifies the utterance: ``utterance_index`` or ``utterance_id``.
        by_split: Whether the split is part of the key.
    """

    rows: Rows
    modality: Modality
    key: str
    by_split: bool


def read_keyed(
    sources: Sequence[str], *, keys: Sequence[str], splits_of_files: bool = False, only: Modality | None = None
) -> list[KeyedVectors]:
    """Read tables of vectors: files, or folders of files.

    Args:
        sources: Paths, or any URIs that fsspec opens; together they have each key of a modality once.
        keys: Columns that may identify the utterance, the preferred one first.
        splits_of_files: Whether a file without ``split`` belongs to the split that its name contains as a word.
        only: The only modality to read, which must exist.

    Raises:
        DataError: A file is damaged or lacks keys or vectors, or its keys or vectors are invalid.
    """
    files, kinds = list[File](), list[Kinds]()
    with spool.Spool() as rows:
        for file in (file for source in sources for file in table_files(source) if file.rows):
            files.append(_read(file, rows, keys, splits_of_files))
            kinds.append(file.kinds)
        tables = rows.tables()
    if only and not files:
        names = ", ".join(map(storage.public, sources))
        raise DataError(f"{names} must hold vectors, but has no row. Name another table.")
    files = [replace(file, columns=table) for file, table in zip(files, tables, strict=True)]
    found = []
    for modality in (only,) if only else MODALITIES:
        column = schema.vector_column(modality)
        holding = [file for file in files if column in file.names]
        if not holding:
            if only:
                raise _lacks(files[0].uri, f"`{column}`, lists of numbers", kinds[0])
            continue
        found.append(_keyed(", ".join(map(storage.public, sources)), holding, modality))
    return found


def attach(rows: Rows, table: KeyedVectors, *, complete: bool) -> Rows:
    """Return a corpus's rows with their vectors replaced by a table's.

    If one side has no dev, dev of the other is part of train: extraction and import cut it from train.

    Args:
        rows: ``N`` rows without null keys and with canonical split names.
        table: ``K`` vectors.
        complete: Whether every row must find a vector; otherwise a row without one gets null.

    Raises:
        DataError: Two rows have the same key, or one side has a key that the other lacks.
    """
    ranks = _ranks(rows, table, complete=complete)
    column = schema.vector_column(table.modality)
    given = table.rows.columns.select([column])
    nothing = pa.table({column: pa.nulls(len(ranks) - given.num_rows, given.schema.field(column).type)})
    vectors = spool.ordered(chain(spool.pieces(given), [nothing]), ranks)[column]
    columns = rows.columns
    if column in columns.schema.names:
        columns = columns.drop_columns([column])
    first = replace(rows.files[0], names={**rows.files[0].names, column: column})
    return replace(rows, files=(first, *rows.files[1:]), columns=columns.append_column(column, vectors))


# --- reading ---


def _read(file: TableFile, rows: spool.Spool, keys: Sequence[str], splits_of_files: bool) -> File:
    uri, kinds = file.uri, file.kinds
    theirs = {ours: found[0] for ours, names in SPELLINGS.items() if (found := [n for n in names if n in kinds])}
    key = next((name for name in keys if name in theirs), None)
    if "dialogue_id" not in theirs or key is None:
        missing = "`dialogue_id`" if "dialogue_id" not in theirs else " or ".join(f"`{name}`" for name in keys)
        raise _lacks(uri, missing, kinds)
    held = {ours: name for ours, name in our_names(kinds).items() if ours.endswith("_feat")}
    read = {*theirs.values(), *held.values()}
    check_types(uri, {name: kind for name, kind in kinds.items() if name in read}, theirs)
    wanted = {name: theirs[name] for name in ("split", "dialogue_id", key) if name in theirs}
    if not held:
        raise _lacks(uri, "`text_feat`, `audio_feat` or `visual_feat`, lists of numbers", kinds)

    def text(ours: str, part: Rows) -> Column:
        return texts(part.columns[wanted[ours]], partial(require_value, part, wanted[ours]))

    def converted(part: Rows) -> pa.Table:
        data: dict[str, Any] = {ours: text(ours, part) for ours in wanted}
        data["utterance_index"] = data.pop(key)
        if "split" not in data and splits_of_files:
            data["split"] = pa.array([_split_of(uri, kinds)] * part.columns.num_rows, pa.string())
        return pa.table(data | {ours: vectors(part.columns[name]) for ours, name in held.items()})

    store(file, [*wanted.values(), *held.values()], rows, converted, [partial(text, ours) for ours in wanted])
    return File(uri, pa.table({}), {**held, "key": key}, file.metadata)


def _split_of(uri: str, kinds: Kinds) -> str:
    words = re.split(r"[^a-z]+", uri.rpartition("/")[2].lower())
    named = {split for word in words if (split := normalise_split(word))}
    if len(named) != 1:
        raise _lacks(uri, "`split`, or a file name with one of the words train, dev and test", kinds)
    return named.pop()


def _keyed(source: str, files: Sequence[File], modality: Modality) -> KeyedVectors:
    column, first = schema.vector_column(modality), files[0]
    for file in files[1:]:
        if file.names["key"] != first.names["key"] or ("split" in file.columns.schema.names) != (
            "split" in first.columns.schema.names
        ):
            raise DataError(
                f"{file.uri} must identify its utterances as {first.uri} does, by the same columns, but does not. Use "
                "the same ones in both.",
                uri=file.uri,
            )
    by_split = "split" in first.columns.schema.names
    plain = ("split", "dialogue_id", "utterance_index")[not by_split :]
    rows = Rows(source, tuple(files), pa.concat_tables([file.columns.select([*plain, column]) for file in files]))
    check_keys(rows, plain)
    if by_split:
        rows = renamed_splits(rows)
    check_vectors(rows, modality)
    return KeyedVectors(rows, modality, first.names["key"], by_split)


def _lacks(uri: str, missing: str, kinds: Kinds) -> DataError:
    return DataError(
        f"{uri} must have the column {missing}, but has only {listed(kinds)}. Add it, or rename the column that holds "
        "it.",
        uri=uri,
    )


# --- keys ---


def _keys(rows: Rows, table: KeyedVectors) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return a number for the key of each row, ``(N,)`` and ``(K,)``: split, dialogue and utterance."""
    ours, theirs = (np.zeros(found.columns.num_rows, np.int64) for found in (rows, table.rows))
    for name in ("split", "dialogue_id", "utterance_index")[not table.by_split :]:
        column = rows.columns[table.key if name == "utterance_index" else name].cast(pa.string())
        theirs_too = table.rows.columns[name]
        if name == "split":
            column, theirs_too = _uncut(rows, table.rows), _uncut(table.rows, rows)
        (one, names), (other, more) = schema.factorized(column), schema.factorized(theirs_too)
        known = pc.index_in(more, value_set=names).to_numpy(zero_copy_only=False)
        places = np.where(np.isnan(known), len(names) + np.arange(len(more)), known).astype(np.int64)
        ours *= len(names) + len(more)
        ours += one
        theirs *= len(names) + len(more)
        for begin in range(0, len(theirs), _KEYS):
            theirs[begin : begin + _KEYS] += places[other[begin : begin + _KEYS]]
        del one, other  # before the next column is coded
    spool.release()
    return ours, theirs


def _uncut(rows: Rows, others: Rows) -> Column:
    """Return the splits of rows; ``train`` for ``dev`` if the others have no dev, and train no dialogue of dev."""
    splits: Column = rows.columns["split"]
    held, theirs = (pc.unique(found.columns["split"]).to_pylist() for found in (rows, others))
    if "dev" not in held or "dev" in theirs:
        return splits
    of_dev = pc.equal(splits, pa.scalar("dev"))
    dialogues = pc.unique(rows.columns["dialogue_id"].filter(of_dev))
    named = pc.is_in(rows.columns["dialogue_id"], value_set=dialogues)
    if pc.any(pc.and_(named, pc.equal(splits, pa.scalar("train")))).as_py():
        return splits
    uncut: Column = pc.if_else(of_dev, pa.scalar("train"), splits)
    return uncut


def _ranks(rows: Rows, table: KeyedVectors, *, complete: bool) -> Integers:
    """Return the corpus's row of each vector of a table, then its rows without a vector, ``(N,)``; as ``attach``."""
    ours, theirs = _keys(rows, table)
    _check_different(rows, ours, table.key, "Add the column `split` to the table of vectors, or correct the ids.")
    _check_different(table.rows, theirs, table.key, "Remove one of the rows.")
    found, there = _places(ours, theirs)
    del theirs
    table.rows.require(
        there,
        table.key,
        must=f"name an utterance of {rows.source}",
        found=lambda _: "is not there",
        remedy="Make the table from the same corpus, and check its keys.",
    )
    named = np.zeros(len(ours), np.bool_)
    named[found] = True
    if complete:
        rows.require(
            named,
            table.key,
            must=f"be named in {table.rows.source} too",
            found=lambda _: "is not there",
            remedy="Add the row, with a null vector if the utterance lacks the modality.",
        )
    return np.concatenate([found, np.flatnonzero(~named).astype(found.dtype)])


def _places(ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> tuple[Integers, Bools]:
    """Return where each of their keys is among ours, any place if it is not there; and whether it is there."""
    order = np.argsort(ours)
    found: Integers = np.empty(len(theirs), np.int32 if len(ours) < 1 << 31 else np.int64)
    there = np.empty(len(theirs), np.bool_)
    for begin in range(0, len(theirs), _KEYS):  # in parts, since each array of all keys takes 8 bytes a row
        part = theirs[begin : begin + _KEYS]
        places = order[np.minimum(np.searchsorted(ours, part, sorter=order), len(ours) - 1)]
        found[begin : begin + _KEYS] = places
        there[begin : begin + _KEYS] = ours[places] == part
    return found, there


def _check_different(rows: Rows, keys: NDArray[np.int64], field: str, remedy: str) -> None:
    ordered = np.sort(keys)
    if (ordered[1:] > ordered[:-1]).all():
        return
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    before = first[inverse]
    different: Bools = before == np.arange(len(keys))
    rows.require(
        different,
        field,
        must="name each utterance once",
        found=lambda row: f"repeats that of {rows.place(int(before[row]))}",
        remedy=remedy,
    )
