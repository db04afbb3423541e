"""Writes a feature set: fingerprint, shards, then the manifest that makes it visible.

Shape letters in this file:
    N utterances     D width of a modality's vectors     G dialogues in a split
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ada2i import storage
from ada2i.data import schema, spool
from ada2i.data.entries import ShardEntry, ShardList
from ada2i.data.manifest import (
    MANIFEST,
    FeatureSet,
    Manifest,
    ModalityInfo,
    SplitInfo,
    TargetInfo,
)
from ada2i.data.parquet import to_parquet
from ada2i.data.provenance import Origin
from ada2i.errors import DataError
from ada2i.modalities import Modality
from ada2i.records import FileEntry, get_folder_file, put_folder_file

DialogueSizes: TypeAlias = tuple[list[int], list[int]]  # by dialogue, in shard order: rows, and number of the split

NAME = re.compile(r"part-\d{5,}\.parquet")  # of a shard
SHARD_BYTES = 32 * 2**20  # of vectors in one shard; only a dialogue larger than that makes a larger shard

_PIECE = 1 << 18  # numbers or texts that are hashed at once
_VERSION = 1  # of the layout; part of the fingerprint


@dataclass(frozen=True)
class Extraction:
    """Additional facts about vectors that were extracted by this project.

    Attributes:
        inputs: Digest of all encoded content and the settings that apply to it; part of the fingerprint.
        origin: The manifest's record of the extraction.
        extra_files: Returns the files to write next to the shards, by name, from the set (its shards are written, its
            manifest is not) and the ``SORT_KEYS`` of its rows in shard order.
    """

    inputs: str
    origin: Origin
    extra_files: Callable[[FeatureSet, pa.Table], Mapping[str, bytes]]


@dataclass(frozen=True)
class Pieces:
    """Rows in any order that are made piece by piece, since not all may fit into memory.

    Attributes:
        keys: ``SORT_KEYS`` of all ``N`` rows.
        schema: That of the pieces, of ``schema.shard_schema``.
        made: Makes the rows in the order of the keys.
    """

    keys: pa.Table
    schema: pa.Schema
    made: Callable[[], Iterable[pa.Table]]

    @classmethod
    def of(cls, table: pa.Table) -> "Pieces":
        """Return the rows of a table that has at least the columns of a shard."""
        widths = schema.widths_of(table.schema)
        shape = schema.shard_schema(widths, targets=schema.TARGET.name in table.column_names)
        columns = table.select(shape.names).cast(shape)
        return cls(columns.select(list(schema.SORT_KEYS)), shape, lambda: spool.pieces(columns))


def write_features(
    root: str,
    table: pa.Table | Pieces,
    *,
    dataset: str,
    synthetic: bool,
    labels: tuple[str, ...],
    encoders: Mapping[Modality, str],
    dev_rule: str | None,
    source: str,
    extraction: Extraction | None = None,
    gate_rule: str | None = None,
    split_rule: str | None = None,
    unused: Mapping[str, str] | None = None,
) -> str:
    """Write a feature set, unless the same content exists already.

    Args:
        root: The storage root; the set goes to ``features/<dataset>/<fingerprint>`` below it.
        table: ``N`` checked utterances with the columns of ``schema.shard_schema``, in any order, or pieces of them.
        dataset: Name of the corpus, with characters of ``[a-z0-9._-]``.
        synthetic: Whether the values are synthetic.
        labels: Class names, by class index.
        encoders: By modality of the table, how the vectors were made.
        dev_rule: How dev was cut from train; None if it was not.
        source: Origin of the values, as text for people.
        extraction: Additional facts, if the vectors were extracted by this project.
        gate_rule: How the gate was cut from train; None if it was not.
        split_rule: How the import made train, dev and test; None if the corpus has splits.
        unused: By column of the source that was not read, what it holds.

    Returns:
        The URI of the set.

    Raises:
        DataError: ``dataset`` is not a valid name.
    """
    _check_name(dataset)
    given = table if isinstance(table, Pieces) else Pieces.of(table)
    widths, (rows, dialogues) = schema.widths_of(given.schema), _sorted(given)
    identity = {"dataset": dataset, "synthetic": synthetic, "labels": labels, "dev_rule": dev_rule}
    inputs = {"inputs": extraction.inputs} if extraction else {}
    digits = fingerprint(rows, **identity, **inputs, encoders={m: encoders[m] for m in widths})
    # The fingerprint covers the splits, and thereby the rules that made them.
    uri = storage.join(storage.normalise(root), "features", dataset, digits)
    if not storage.exists(storage.join(uri, MANIFEST)):
        infos = {m: ModalityInfo(width=width, encoder=encoders[m]) for m, width in widths.items()}
        rules = {"gate_rule": gate_rule, "split_rule": split_rule}
        facts = {**identity, **rules, "modalities": infos, "source": source, "unused": unused or {}}
        _write(uri, rows, dialogues, extraction, **facts, fingerprint=digits)
    return uri


def copy_features(features: FeatureSet, root: str) -> str:
    """Copy a feature set to a root, unless it is there; return its URI there.

    Raises:
        IntegrityError: A file differs from the digest in the manifest.
    """
    manifest = features.manifest
    for name in (manifest.dataset, manifest.fingerprint):
        _check_name(name)
    uri = storage.join(storage.normalise(root), "features", manifest.dataset, manifest.fingerprint)
    if not storage.exists(storage.join(uri, MANIFEST)):
        # After a crash no manifest names the files, so no reader opens them; the next copy replaces them.
        files = {entry.name: FileEntry(size=entry.size, sha256=entry.sha256) for entry in manifest.shards}
        files |= manifest.files
        for name, entry in files.items():
            storage.put(storage.join(uri, name), get_folder_file(features.uri, name, entry))
        storage.put_if_absent(storage.join(uri, MANIFEST), storage.get(storage.join(features.uri, MANIFEST)))
    return uri


def fingerprint(rows: pa.Table, **identity: Any) -> str:
    """Return 32 hex digits that identify this content.

    Equal content gives equal digits for any files, chunks, layout and version of pyarrow: only raw values are hashed.

    Args:
        rows: ``N`` sorted utterances.
        identity: Other values that distinguish two sets, as JSON values.
    """
    total = hashlib.sha256()
    _feed(total, json.dumps({"schema_version": _VERSION, **identity}, sort_keys=True).encode())
    for field in rows.schema:
        _feed(total, field.name.encode())
        _feed_column(total, rows, field)
    return total.hexdigest()[:32]


def cut_shards(sizes: Sequence[int], splits: Sequence[int], fit: int) -> list[tuple[int, int]]:
    """Choose the row ranges of shards.

    Args:
        sizes: Rows of each dialogue in a split, in shard order.
        splits: A number for its split.
        fit: Maximum rows of a shard; a single dialogue may have more.

    Returns:
        Start and end (exclusive) of each shard; none spans two splits, and no dialogue spans two shards.
    """
    bounds = []
    begin = start = 0
    for size, before, split in zip(sizes, [None, *splits], splits, strict=False):
        if start > begin and (split != before or start + size - begin > fit):
            bounds.append((begin, start))
            begin = start
        start += size
    return [*bounds, (begin, start)]


def _check_name(dataset: str) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", dataset):
        raise DataError(
            f"`dataset` must be a name of a-z, 0-9, '.', '_' and '-' that starts with a letter or digit, but is "
            f"{dataset!r}. Choose another name.",
            field="dataset",
        )


def _sorted(given: Pieces) -> tuple[pa.Table, DialogueSizes]:
    """Return rows and dialogues in shard order."""
    order = schema.RowOrder.of(given.keys)
    return spool.ordered(given.made(), order.ranks), (order.sizes.tolist(), order.splits.tolist())


def _write(uri: str, rows: pa.Table, dialogues: DialogueSizes, extraction: Extraction | None, **facts: Any) -> None:
    # Parts and the other files are written first, the manifest last: after a crash in between, no manifest names the
    # parts, so no reader opens them; the next run with this content replaces them by the same bytes. Concurrent writers
    # write the same parts; one manifest wins.
    infos: dict[str, SplitInfo] = {}
    shards = ShardList.of(_put_shards(uri, rows, dialogues, infos, classes=len(facts["labels"])))
    manifest = Manifest(**facts, splits=infos, shards=shards)
    if extraction:
        manifest = manifest.model_copy(update={"origin": extraction.origin})
        files = _put_files(uri, extraction.extra_files(FeatureSet(uri, manifest), rows.select(list(schema.SORT_KEYS))))
        manifest = manifest.model_copy(update={"files": files})
    storage.put_if_absent(storage.join(uri, MANIFEST), manifest.stored())


def _put_files(uri: str, files: Mapping[str, bytes]) -> dict[str, FileEntry]:
    return {name: put_folder_file(uri, name, data) for name, data in files.items()}


def _feed(total: "hashlib._Hash", part: bytes) -> None:
    _feed_pieces(total, len(part), [part])


def _feed_pieces(total: "hashlib._Hash", length: int, pieces: Iterable[Any]) -> None:
    """Hash one part, after its length in bytes, which marks where it ends."""
    total.update(length.to_bytes(8, "little"))
    for piece in pieces:
        total.update(piece)


def _feed_column(total: "hashlib._Hash", rows: pa.Table, field: "pa.Field[Any]") -> None:
    """Hash a column's values as bytes that do not depend on the layout."""
    number = rows.num_rows
    _feed_pieces(total, number, (piece.is_valid().to_numpy().astype(np.uint8) for piece in _pieces(rows, field)))
    if pa.types.is_fixed_size_list(field.type):
        width = field.type.list_size
        _feed(total, width.to_bytes(8, "little"))
        vectors = (schema.unpack_vectors(piece)[0].astype("<f4", copy=False) for piece in _pieces(rows, field))
        _feed_pieces(total, 4 * width * number, vectors)
    elif pa.types.is_string(field.type):
        size = 0
        _feed_pieces(total, 8 * number, [])
        for piece in _pieces(rows, field):
            lengths = pc.binary_length(piece.fill_null("")).to_numpy().astype("<i8")
            total.update(lengths)
            size += int(lengths.sum())
        texts = (b"".join(piece.fill_null("").cast(pa.binary()).to_pylist()) for piece in _pieces(rows, field))
        _feed_pieces(total, size, texts)
    else:
        kind = "<f4" if pa.types.is_floating(field.type) else "<i8"
        values = (piece.to_numpy().astype(kind) for piece in _pieces(rows, field))
        _feed_pieces(total, int(kind[-1]) * number, values)


def _pieces(rows: pa.Table, field: "pa.Field[Any]") -> "Iterator[Any]":
    """Yield a column piece by piece."""
    width = field.type.list_size if pa.types.is_fixed_size_list(field.type) else 1
    step = max(1, _PIECE // width)
    for begin in range(0, rows.num_rows, step):
        yield rows[field.name].slice(begin, step)
        spool.release()


def _put_shards(
    uri: str, rows: pa.Table, dialogues: DialogueSizes, infos: dict[str, SplitInfo], classes: int
) -> Iterator[ShardEntry]:
    """Write the shards; add the counts of their splits to ``infos``."""
    width = sum(schema.widths_of(rows.schema).values())  # 0 if a set holds transcripts only
    fit = max(1, SHARD_BYTES // (4 * max(1, width)))
    for number, (begin, end) in enumerate(cut_shards(*dialogues, fit)):
        entry, info = _put_shard(uri, f"part-{number:05d}.parquet", rows.slice(begin, end - begin), classes)
        infos[entry.split] = _sum(infos[entry.split], info) if entry.split in infos else info
        yield entry
        spool.release()


def _put_shard(uri: str, name: str, part: pa.Table, classes: int) -> tuple[ShardEntry, SplitInfo]:
    data, info = _encode(part), _info(part, classes)
    storage.put(storage.join(uri, name), data)
    split, digits = str(part["split"][0].as_py()), storage.digest(data)
    entry = ShardEntry(
        name=name, split=split, size=len(data), sha256=digits, rows=part.num_rows, dialogues=info.dialogues
    )
    return entry, info


def _encode(part: pa.Table) -> bytes:
    # Every option that affects the bytes is fixed here, and the rows are one chunk: equal rows give equal bytes.
    plain = [field.name for field in part.schema if not pa.types.is_fixed_size_list(field.type)]
    return to_parquet(
        part.combine_chunks(),
        row_group_size=part.num_rows,
        version="2.6",
        data_page_version="1.0",
        data_page_size=2**20,
        compression="zstd",
        compression_level=3,
        use_dictionary=plain,
        write_statistics=plain,
    )


def _info(part: pa.Table, classes: int) -> SplitInfo:
    """Return the counts of a shard."""
    labels = part["label"].to_numpy()
    return SplitInfo(
        dialogues=pc.count_distinct(part["dialogue_id"]).as_py(),
        utterances=part.num_rows,
        class_counts=tuple(np.bincount(labels[labels >= 0], minlength=classes).tolist()),
        targets=_target_info(part) if schema.TARGET.name in part.column_names else None,
    )


def _target_info(part: pa.Table) -> TargetInfo:
    targets = part[schema.TARGET.name].drop_null().to_numpy()
    low, high = (float(targets.min()), float(targets.max())) if len(targets) else (0.0, 0.0)
    return TargetInfo(utterances=len(targets), low=low, high=high)


def _sum(one: SplitInfo, other: SplitInfo) -> SplitInfo:
    """Return the counts of two shards of a split, which share no dialogue."""
    held = [info.targets for info in (one, other) if info.targets and info.targets.utterances]
    targets = TargetInfo(
        utterances=sum(info.utterances for info in held),
        low=min((info.low for info in held), default=0.0),
        high=max((info.high for info in held), default=0.0),
    )
    return SplitInfo(
        dialogues=one.dialogues + other.dialogues,
        utterances=one.utterances + other.utterances,
        class_counts=tuple(a + b for a, b in zip(one.class_counts, other.class_counts, strict=True)),
        targets=targets if one.targets else None,
    )
