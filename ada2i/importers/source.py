"""Reads the files of a table, or a feature set, into canonical column names and types."""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ada2i import storage
from ada2i.data import schema, shards, spool
from ada2i.data.manifest import FeatureSet, is_feature_set, open_features, read_shard_bytes
from ada2i.data.schema import VECTOR_COLUMNS, Column, is_text
from ada2i.errors import DataError, NotFoundError
from ada2i.evaluation.regression import SIGNS
from ada2i.importers.arrow_types import (
    Kinds,
    Require,
    TableFile,
    is_name,
    is_number,
    is_vector,
    listed,
    texts,
    times,
    vectors,
    whole,
    without_nan,
)
from ada2i.importers.columns import NO_CHANGES, Changes, likely, wide
from ada2i.importers.formats import FAMILIES, SUFFIXES, conversion, suffix_of
from ada2i.importers.rows import Bools, File, Rows, unread
from ada2i.importers.splitting import PATH_SPLIT
from ada2i.records import UNLABELLED

Check = Callable[[Rows], object]
"""Refuses bad rows of a file; its columns have their own names."""

_UNSPLIT = ("dialogue_id", "utterance_index", "label")
REQUIRED = (*_UNSPLIT, "split")
_TARGET = schema.TARGET.name
_OPTIONAL = ("utterance_id", "speaker", "text", "recorded_at", _TARGET)
LABEL_RULE = "label_rule"  # key of a file's metadata
_BY_SIGN = "labels: the sign of `target`"


def read_rows(source: str, *, vectors: bool = True, changes: Changes = NO_CHANGES, group: str | None = None) -> Rows:
    """Read a table, all tables below a folder, or a feature set.

    Args:
        source: A path, or any URI that fsspec opens.
        vectors: Whether there must be a vector column.
        changes: Of the columns.
        group: A column to read in addition, as text; the files need no ``split`` then, and their paths give none.

    Raises:
        DataError: There is no such file, one is damaged or lacks a column, a type is wrong, or there are no rows.
    """
    read, files = 0, list[File]()
    with spool.Spool() as rows:
        for read, file in enumerate(table_files(source, changes), 1):  # noqa: B007
            files += _read_file(file, rows, vectors=vectors, group=group)
        tables = rows.tables()
    files = _labelled([replace(file, columns=table) for file, table in zip(files, tables, strict=True)])
    base = open_features(source) if is_feature_set(source) else None
    source = storage.public(source)
    if not files:
        raise DataError(
            f"{source} must hold at least one utterance, but has no row in {read} file(s). Check what wrote it.",
            uri=source,
        )
    alike = _alike(files)
    columns = pa.concat_tables([file.columns for file in alike])
    return Rows(source, alike, _without_labels(columns) if base else columns, base)


def _without_labels(columns: pa.Table) -> pa.Table:
    """Return the rows of a feature set with null for the label that means none."""
    label = columns["label"]
    known = pc.if_else(pc.equal(label, pa.scalar(float(UNLABELLED))), pa.scalar(None, label.type), label)
    return schema.with_column(columns, "label", known)


def _read_file(file: TableFile, rows: spool.Spool, *, vectors: bool, group: str | None) -> list[File]:
    """Write the rows of a file to a spool; return the file without them, or nothing if it has no rows."""
    if not file.rows:  # such a file has no types: pandas writes all its columns as null
        return []
    required = [*_UNSPLIT, "split" if group is None else group]
    if _TARGET in our_names(file.kinds):  # labels are then derived
        required.remove("label")
    names, metadata = dict(checked_names(file, vectors=vectors, required=required)), dict(file.metadata)
    if group is not None:
        names.setdefault(group, group)
        if "split" in file.folders:
            metadata[PATH_SPLIT] = str(file.folders[names.pop("split")])
    checks: list[Check] = [partial(_conform, ours, names) for ours in _columns(names, group)]
    if "label" in names:
        checks.insert(0, partial(_check_labels, name=names["label"]))

    def converted(part: Rows) -> pa.Table:
        if "label" in names:
            _check_labels(part, names["label"])
        return conform(part.columns, names, file.uri, part.files[0].first_row, group)

    store(file, list(names.values()), rows, converted, checks)
    free = [name for name in (*_OPTIONAL, *VECTOR_COLUMNS) if name not in names]
    unused = unread(file.kinds, names.values(), file.describe, free)
    return [File(file.uri, pa.table({}), names, metadata, unused=unused)]


def store(
    file: TableFile,
    columns: list[str],
    rows: spool.Spool,
    converted: Callable[[Rows], pa.Table],
    checks: Sequence[Check],
) -> None:
    """Write some columns of a file to a spool, piece by piece.

    Args:
        file: A file that has rows.
        columns: The columns to read.
        rows: The spool.
        converted: Checks and converts a piece.
        checks: The checks that it makes, in the order in which their problems are reported.

    Raises:
        DataError: A check failed, or the file is damaged: the first problem of all rows, with the number of bad rows.
    """
    try:
        rows.add(map(converted, _parts(file, columns)))
    except DataError:
        found: list[list[_BadRows]] = [[] for _ in checks]
        for part in _parts(file, columns):
            for check, bad in zip(checks, found, strict=True):
                try:
                    check(_Counted(**vars(part)))
                except _BadRows as problem:
                    bad.append(problem if not bad else _BadRows(problem.number))
        for first, *more in filter(None, found):
            first.refuse(others=sum(problem.number for problem in more))
        raise


def _parts(file: TableFile, columns: list[str]) -> Iterator[Rows]:
    first = 0
    for table in file.batches(columns, spool.PIECE):
        yield Rows(file.uri, (File(file.uri, table, {}, {}, first),), table)
        first += table.num_rows


class _BadRows(Exception):  # noqa: N818  # it is always caught
    def __init__(self, number: int, refuse: Callable[..., None] = lambda **_: None) -> None:
        super().__init__()
        self.number, self.refuse = number, refuse


@dataclass(frozen=True)
class _Counted(Rows):
    """Rows of a file of which others may be bad too."""

    def require(self, good: Bools, field: str, **more: Any) -> None:
        """Count the bad rows."""
        if not good.all():
            raise _BadRows(int(np.count_nonzero(~good)), partial(super().require, good, field, **more))


def _labelled(files: list[File]) -> list[File]:
    """Return the files with a label in each row that has a target, by its sign, if they have no column `label`."""
    bare = [file for file in files if "label" not in file.names]
    zero = any(pc.any(pc.equal(file.columns[_TARGET], pa.scalar(0.0))).as_py() for file in bare)
    names = SIGNS if zero else (SIGNS[0], SIGNS[2])
    facts = {"label_names": ",".join(f"{index}={name}" for index, name in enumerate(names)), LABEL_RULE: _BY_SIGN}
    return [_with_signs(file, facts) if file in bare else file for file in files]


def _with_signs(file: File, facts: Mapping[str, str]) -> File:
    target = file.columns[_TARGET]
    negative, neutral, positive = (pa.scalar(name) for name in SIGNS)
    signs = pc.if_else(pc.greater(target, pa.scalar(0.0)), positive, neutral)
    signs = pc.if_else(pc.less(target, pa.scalar(0.0)), negative, signs)
    columns = schema.with_column(file.columns, "label", signs)
    return replace(file, columns=columns, metadata={**file.metadata, **facts})


def table_files(source: str, changes: Changes = NO_CHANGES) -> Iterator[TableFile]:
    """Open the files of a table one after another, each until the next; shards of a set are checked by its manifest.

    Raises:
        DataError: There is no such file, or one is damaged.
    """
    if is_feature_set(source):
        yield from _shards(open_features(source), changes)
        return
    for uri in table_uris(source):
        with storage.open_source(uri, whole=True) as opened:
            yield TableFile.open(opened, uri, changes=changes)


def _shards(features: FeatureSet, changes: Changes) -> Iterator[TableFile]:
    manifest = features.manifest
    facts = {"dataset": manifest.dataset, "source": manifest.source}
    facts |= {f"{modality}_encoder": info.encoder for modality, info in manifest.modalities.items()}
    facts |= {"synthetic": "true"} if manifest.synthetic else {}
    for entry in manifest.shards:
        data = read_shard_bytes(features, entry)
        yield TableFile.open(data, storage.join(features.uri, entry.name), facts, changes)


def has_table_suffix(location: str) -> bool:
    """Return whether a location ends like the name of a table's file."""
    return bool(suffix_of(location))


def table_uris(source: str) -> list[str]:
    """Return the URIs of a table's files: one file, or all files of one format below a folder.

    Raises:
        DataError: The location does not exist, holds no table or several formats, or holds shards of a feature set,
            which are not a table.
    """
    try:
        found = storage.source_files(source, SUFFIXES)
    except NotFoundError as problem:
        raise DataError(f"{problem.message}{_other_format(source)}", **problem.context) from problem
    families: dict[str, str] = {}
    for uri in found:
        families.setdefault(FAMILIES.get(suffix_of(uri), ""), uri)
    if len(families) > 1:
        held = ", ".join(f"{family} ({storage.public(uri)})" for family, uri in families.items())
        raise DataError(
            f"{storage.public(source)} must hold tables of one format, but holds {held}. Name one file, or move the "
            "others to another folder.",
            uri=storage.public(source),
        )
    found = _without_caches(source, found) if "Arrow" in families else found
    _refuse_shards(source, found)
    return found


def _other_format(source: str) -> str:
    """Return how to convert the first file of a location whose format is known, but not read."""
    with suppress(NotFoundError):
        return next((f" {todo}" for uri in storage.source_files(source, "") if (todo := conversion(uri))), "")
    return ""


def _without_caches(source: str, found: list[str]) -> list[str]:
    """Return the files that a folder of `datasets` lists in its ``state.json``; others there are caches."""
    try:
        states = storage.source_files(source, "/state.json")
    except NotFoundError:
        return found
    for state in states:
        if not state.endswith("/state.json"):  # the location is a file
            break
        try:
            held = json.loads(storage.read_source(state))
            named = [str(entry["filename"]) for entry in held["_data_files"]]
        except (ValueError, LookupError, TypeError, RecursionError):
            continue  # a file of another program
        folder = state.rpartition("/")[0]
        listed = {storage.join(folder, name) for name in named}
        if missing := sorted(listed - set(found)):
            raise DataError(
                f"{missing[0]} must exist, because {state} lists it, but does not. Copy the folder in full.", uri=state
            )
        found = [uri for uri in found if uri.rpartition("/")[0] != folder or uri in listed]
    return found


def _refuse_shards(source: str, found: Iterable[str]) -> None:
    for folder in sorted({uri.rpartition("/")[0] for uri in found if shards.NAME.fullmatch(uri.rpartition("/")[2])}):
        if is_feature_set(folder):
            raise DataError(
                f"{storage.public(source)} must be a table, but holds files of the feature set {folder}. Name the "
                "folder of one feature set itself.",
                uri=folder,
            )


def checked_names(file: TableFile, *, required: Collection[str], vectors: bool = True) -> Mapping[str, str]:
    """Check the columns and types of a file, but no values.

    Args:
        file: The file.
        required: Columns that it must have.
        vectors: Whether there must be a vector column.

    Returns:
        Its own column names, by canonical name of the columns that it has.

    Raises:
        DataError: It lacks a column, or a type is wrong.
    """
    _check_required(file.uri, file.kinds, required)
    check_types(file.uri, file.kinds)
    names = our_names(file.kinds)
    _check_unique(file.uri, [*file.columns, *file.packed], names)
    if vectors and not names.keys() & VECTOR_COLUMNS.keys():
        packs = wide(file.kinds)
        hint = f"`ada2i import table` packs wide columns: `{' '.join(packs)}`." if packs else ""
        raise DataError(
            f"{file.uri} must hold a vector column, lists of numbers in `text_feat`, `audio_feat` or `visual_feat`, "
            f"but has only {listed(file.kinds)}. {hint or 'Add the vectors, or extract features first.'}",
            uri=file.uri,
        )
    return names


def our_names(kinds: Kinds) -> dict[str, str]:
    """Return a file's own column names, by canonical name of the columns that it has.

    A bare ``text``, ``audio`` or ``visual`` means vectors if it holds lists and there is no ``..._feat``; a bare
    ``text`` without lists is the transcript.
    """
    plain = [name for name in (*REQUIRED, *_OPTIONAL) if name in kinds]
    names = {name: name for name in plain if name != "text" or not is_vector(kinds[name])}
    if _TARGET in names and (not is_number(kinds[_TARGET]) or pa.types.is_null(kinds[_TARGET])):
        del names[_TARGET]  # no numbers: a column that is not read
    for column, bare in VECTOR_COLUMNS.items():
        if column in kinds:
            names[column] = column
        elif bare in kinds and (is_vector(kinds[bare]) or (bare != "text" and pa.types.is_null(kinds[bare]))):
            names[column] = bare
    return names


# --- required properties of a file ---


def _check_labels(rows: Rows, name: str) -> None:
    """Refuse an empty label, which may be a mistake; null is an utterance without a label."""
    label = rows.columns[name]
    if is_text(label.type):
        empty = pc.equal(pc.utf8_trim_whitespace(label), pa.scalar("", label.type)).fill_null(False)
        rows.require(
            ~empty.to_numpy(),
            name,
            must="hold a value in every row",
            found=lambda row: f"holds {label[row].as_py()!r}",
            remedy="Fill it in, or write null for an utterance without a label, which is then only context.",
        )


def _check_required(uri: str, kinds: Kinds, required: Collection[str]) -> None:
    if missing := [name for name in required if name not in kinds]:
        raise DataError(
            f"{uri} must have the column `{missing[0]}`, but has only {listed(kinds)}. {_remedy(missing, kinds)}",
            uri=uri,
            field=missing[0],
        )


def _remedy(missing: Sequence[str], kinds: Kinds) -> str:
    """Return the options that may help, for all missing columns at once."""
    found = {column: other for column in missing if (other := likely(column, kinds)) is not None}
    options = [f"--rename '{other}={column}'" for column, other in found.items()]
    options += ["--split-by dialogue"] if "split" in missing and "split" not in found else []
    options += [] if our_names(kinds).keys() & VECTOR_COLUMNS.keys() else wide(kinds)
    if not options:
        return f"Add it, or rename the column that holds it: `ada2i import table` takes `--rename OLD={missing[0]}`."
    return f"Add it, or, if that is what the table means, `ada2i import table` takes `{' '.join(options)}`."


def _check_unique(uri: str, columns: list[str], names: Mapping[str, str]) -> None:
    for name in names.values():
        if (number := columns.count(name)) > 1:
            raise DataError(
                f"{uri} must have one column `{name}`, but has {number} of that name. Rename or drop the others.",
                uri=uri,
                field=name,
            )


def check_types(uri: str, kinds: Kinds, spellings: Mapping[str, str] | None = None) -> None:
    """Refuse a column of a wrong type.

    Args:
        uri: The file, for the message.
        kinds: The types of its columns.
        spellings: The file's own names of some columns, by canonical name; by default equal.
    """
    for ours, (fits, must) in _TYPES.items():
        name = (spellings or {}).get(ours, ours)
        if name in kinds and not fits(kinds[name]) and not pa.types.is_null(kinds[name]):
            raise DataError(
                f"Column `{name}` of {uri} must hold {must}, but from row 0 on holds {kinds[name]}. Convert it.",
                uri=uri,
                row=0,
                field=name,
            )


def _alike(files: list[File]) -> tuple[File, ...]:
    """Return files with the same columns and one type of labels, after checking that only empty ones differed."""
    held = {column: file for file in files for column in VECTOR_COLUMNS if column in file.names}
    first = next((file for file in files if file.columns["label"].null_count < file.columns.num_rows), files[0])
    return tuple(_with_label(_with_vectors(file, held), first) for file in files)


def _with_vectors(file: File, held: Mapping[str, File]) -> File:
    for column, other in held.items():
        if column in file.names:
            continue
        name = other.names[column]
        if not (name in file.names and file.columns["text"].null_count == file.columns.num_rows):
            raise DataError(
                f"{file.uri} must have the column `{name}`, as {other.uri} has, but does not. Add it (null if an "
                "utterance lacks the modality), or import the files separately.",
                uri=file.uri,
                field=name,
            )
        nothing = pa.nulls(file.columns.num_rows, pa.large_list(pa.float32()))
        columns = file.columns.append_column(column, nothing)
        file = replace(file, names={**file.names, column: name}, columns=columns)
    order = [name for name in file.columns.schema.names if name not in VECTOR_COLUMNS]
    return replace(
        file, columns=file.columns.select([*order, *(column for column in VECTOR_COLUMNS if column in held)])
    )


def _with_label(file: File, first: File) -> File:
    kind, label = first.columns["label"].type, file.columns["label"]
    if label.type == kind:
        return file
    if label.null_count < len(label):
        raise DataError(
            f"Column `label` of {file.uri} must hold {'class names' if kind == pa.string() else 'class indices'}, as "
            f"{first.uri} does, but from row 0 on holds {label.type}. Write all files alike.",
            uri=file.uri,
            row=0,
            field="label",
        )
    return replace(file, columns=schema.with_column(file.columns, "label", pa.nulls(len(label), kind)))


# --- types of the file and canonical types ---


def _is_time(kind: pa.DataType) -> bool:
    return pa.types.is_timestamp(kind) or pa.types.is_date(kind) or is_text(kind)


def _is_transcript(kind: pa.DataType) -> bool:
    return is_text(kind) or is_vector(kind)  # lists: the vectors of a bare `text`


# By column: the check of its type, and the allowed types in words. Any column may be null all over, without a type.
_TYPES: Mapping[str, tuple[Callable[[pa.DataType], bool], str]] = {
    "dialogue_id": (is_name, "text or integers"),
    "utterance_index": (is_number, "integers"),
    "label": (is_name, "class indices (integers) or class names (text)"),
    "split": (is_text, "text"),
    "utterance_id": (is_name, "text or integers"),
    "speaker": (is_name, "text or integers"),
    "text": (_is_transcript, "text or lists of numbers"),
    "recorded_at": (_is_time, "timestamps, dates, or text in ISO 8601"),
    **dict.fromkeys(VECTOR_COLUMNS, (is_vector, "lists of numbers")),
}


def conform(table: pa.Table, names: Mapping[str, str], uri: str, first_row: int, group: str | None = None) -> pa.Table:
    """Return the columns with canonical names and types; an optional column that the file lacks is null.

    Names are without blanks around them, and an empty one is null.

    Args:
        table: Columns of a file.
        names: The file's own column names, by canonical name.
        uri: The file, for messages.
        first_row: Number of the first row.
        group: Another column to keep, as text.

    Raises:
        DataError: A value does not fit the canonical type; the message names its row.
    """
    rows = Rows(uri, (File(uri, table, names, {}, first_row),), table)
    return pa.table({ours: _conform(ours, names, rows) for ours in _columns(names, group)})


def _columns(names: Mapping[str, str], group: str | None) -> tuple[str, ...]:
    more = [group] if group is not None and group not in (*REQUIRED, *_OPTIONAL) else []
    return (*REQUIRED, *_OPTIONAL, *more, *(column for column in VECTOR_COLUMNS if column in names))


def _conform(ours: str, names: Mapping[str, str], rows: Rows) -> Column:
    """Return a column of a file with its canonical type; null if the file lacks it."""
    absent: Column = pa.chunked_array([pa.nulls(rows.columns.num_rows)])
    column = rows.columns[names[ours]] if ours in names else absent
    return _conformed(ours, column, partial(require_value, rows, names.get(ours, ours)))


def _conformed(ours: str, column: Column, require: Require) -> Column:
    if ours in VECTOR_COLUMNS:
        return vectors(column)
    if ours == "utterance_index":
        return whole(column, require)
    if ours == "recorded_at":
        return times(column, require)
    if ours == _TARGET:
        return without_nan(column)
    if ours == "label" and is_number(column.type) and not pa.types.is_null(column.type):
        return without_nan(column)
    return texts(column, require, stripped=ours != "text")


def require_value(rows: Rows, field: str, good: Bools, must: str, found: Callable[[int], str]) -> None:
    """Refuse the first row whose value cannot be converted."""
    rows.require(good, field, must=must, found=found, remedy="Correct the value, or write the column as text.")
