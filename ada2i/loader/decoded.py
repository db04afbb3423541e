"""Decoded shards: Arrow files on the machine's local disk, whose pages all workers of the machine share.

A file gets its final name when it is complete; a power cut can still damage it, so a file of the cache is used only if
its digest is the recorded one. Files of the cache are named by the shard's digest and reused by later runs; the folder
may be deleted whenever no run is active.

Shape letters in this file:
    N utterances of a shard     R dialogues of a shard     W width of a modality's vectors
"""

import hashlib
import os
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ada2i import storage
from ada2i.data import schema
from ada2i.data.entries import ShardEntry
from ada2i.data.manifest import FeatureSet, read_shard, read_shard_bytes
from ada2i.errors import AccessError, ResourceError
from ada2i.modalities import Modality

LAYOUT = 3  # version of these files; another version has other names

_PLACES = 31  # other places of a shard that are kept as checked
_LEFT_OVER_S = 3600  # a partial file older than an hour belongs to a killed worker

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Chunk:
    """One memory-mapped shard; arrays are views of the file.

    Attributes:
        features: By modality, ``(N, W)``; zeros if an utterance lacks it.
        present: By modality, ``(N,)``.
        labels: ``(N,)``.
        speakers: ``(N,)`` speaker, numbered from 0 by first appearance in the dialogue.
        targets: ``(N,)``, NaN for an utterance without one; None: the set has none.
    """

    features: dict[Modality, Floats]
    present: dict[Modality, npt.NDArray[np.bool_]]
    labels: Ints
    speakers: Ints
    targets: Floats | None = None


def cache_folder() -> Path:
    """Return the user's folder of decoded files on this machine; delete partial files of killed workers.

    Raises:
        AccessError: The folder belongs to another user.
    """
    folder = Path(tempfile.gettempdir()) / f"ada2i-features-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    # Another user could create a folder with this name first: features from another user must not be used.
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise AccessError(f"{folder} must belong to the user who trains, but does not. Delete it, or set TMPDIR.")
    storage.delete_partials(folder.as_uri(), older_than_s=_LEFT_OVER_S)
    return folder


def cached_file(shard: ShardEntry, cache: Path) -> Path:
    """Return the path of a decoded shard in the cache."""
    return cache / f"{shard.sha256}.{LAYOUT}.arrow"


def decode_to_cache(features: FeatureSet, shard: ShardEntry, cache: Path, stamp: str) -> None:
    """Create the shard's file in the cache, unless an intact one exists.

    The shard itself is checked, too: if it changed since it was last read from this place, or was not read from here
    before, its bytes are compared with the manifest.

    Args:
        features: The feature set.
        shard: The shard.
        cache: The folder.
        stamp: The shard's stamp; see ``storage.objects``.

    Raises:
        IntegrityError: The shard differs from the digest in the manifest.
        ResourceError: The disk is full.
    """
    target = cached_file(shard, cache)
    record = target.with_suffix(".sha256")  # the file's digest, then one line for each shard that was checked
    checked = storage.digest(f"{storage.join(features.uri, shard.name)} {stamp}".encode())
    known = record.read_text().splitlines() if record.is_file() else []
    if target.is_file() and known[:1] == [_digest(target)]:
        if checked not in known:
            read_shard_bytes(features, shard)
            storage.put(record.as_uri(), "\n".join([known[0], *known[1:][-_PLACES:], checked]).encode())
        return
    partial = decode(features, shard, cache)
    # A crash between these two writes leaves a digest without its file: the shard is decoded again.
    storage.put(record.as_uri(), f"{_digest(partial)}\n{checked}".encode())
    complete(partial, target)


def partial_file(folder: Path) -> Path:
    """Return the path of a new file that is to be written.

    A kill leaves it; ``cache_folder`` deletes it, or the attempt's end deletes its folder.
    """
    return folder / f".partial-{uuid.uuid4().hex}"


def complete(partial: Path, target: Path) -> None:
    """Give a file its final name after all of it has reached the disk: a target is complete or absent."""
    with partial.open("rb") as written:
        os.fsync(written.fileno())
    partial.replace(target)


def decode(features: FeatureSet, shard: ShardEntry, folder: Path) -> Path:
    """Decode a shard, checked against its digest, into a partial file, which the caller renames.

    Raises:
        IntegrityError: The shard differs from the digest in the manifest.
        ResourceError: The disk is full.
    """
    table = read_shard(features, shard)
    columns: dict[str, Any] = {"dialogue_id": table["dialogue_id"], "label": table["label"].cast(pa.int64())}
    columns["speaker"] = schema.by_appearance(schema.codes(table["speaker"]), runs(table["dialogue_id"])[1])
    if features.manifest.has_targets:
        columns["target"] = table["target"].fill_null(pa.scalar(np.nan, pa.float32()))
    for modality in features.manifest.modalities:
        columns[f"{modality}_present"], columns[modality] = _dense(table[schema.vector_column(modality)])
    partial = partial_file(folder)
    flat = pa.table(columns).combine_chunks()
    try:
        with pa.OSFile(str(partial), "wb") as file, pa.ipc.new_file(file, flat.schema) as writer:
            writer.write_table(flat, max_chunksize=max(flat.num_rows, 1))
    except OSError as problem:
        partial.unlink(missing_ok=True)
        raise ResourceError(
            f"{folder} must have room for decoded features, but: {problem}. Free disk space there, lower "
            "`training.shuffle_gib`, or set TMPDIR."
        ) from problem
    return partial


def map_table(path: Path) -> pa.Table:
    """Return a file as a table whose columns are views of the file.

    Raises:
        FileNotFoundError: The file does not exist.
    """
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def runs(dialogue_id: Any) -> tuple[Any, Ints]:
    """Return ids and lengths, ``(R,)`` each, of the dialogues in a column; the rows of each are adjacent."""
    encoded = pc.run_end_encode(dialogue_id.combine_chunks())  # type: ignore[attr-defined]  # the stubs miss it
    ends = np.asarray(encoded.run_ends.to_numpy(), dtype=np.int64)
    return encoded.values, np.diff(ends, prepend=0)


def chunk_of(table: pa.Table, modalities: Sequence[Modality]) -> Chunk:
    """Return a mapped table's columns as arrays, without a copy."""

    def column(name: str) -> Any:
        return table[name].chunk(0)  # there is only one; combining even a single chunk copies it

    return Chunk(
        features={m: _vectors(column(m)) for m in modalities},
        present={m: column(f"{m}_present").to_numpy(zero_copy_only=False) for m in modalities},
        labels=column("label").to_numpy(),
        speakers=column("speaker").to_numpy(),
        targets=column("target").to_numpy() if "target" in table.column_names else None,
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_whole(path: Path) -> bool:
    """Return whether a file exists and can be mapped: after a power cut, a new file may be damaged."""
    try:
        map_table(path)
    except (OSError, pa.ArrowInvalid):
        return False
    return True


def _dense(column: Any) -> tuple[npt.NDArray[np.bool_], Any]:
    """Return which vectors are present, ``(N,)``, and the column with zeros instead of nulls."""
    if not column.null_count:  # unchanged: no copy
        return np.ones(len(column), np.bool_), column
    values, present = schema.unpack_vectors(column)
    return present, schema.pack_vectors(values, np.ones_like(present))


def _vectors(column: Any) -> Floats:
    flat: Floats = column.values.to_numpy(zero_copy_only=True)
    return flat.reshape(-1, column.type.list_size)
