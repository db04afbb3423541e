"""From feature shards to batches: shards are decoded once per machine, then memory-mapped by all its workers.

Of the shards of a split each worker decodes its own part (every n-th) into an Arrow file next to those of its
neighbours, and maps them all: pages are shared, so a machine holds each value once, however many workers train on it.
Files are named by the shard's digest and are reused by later runs; the folder may be deleted at any time that nothing
runs.

Shape letters in this file:
    D dialogues of the split     N utterances of a batch     W width of a modality's vectors
"""

import os
import tempfile
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from ada2i.batch import DialogueBatch, Layout
from ada2i.data import schema
from ada2i.data.manifest import FeatureSet, ShardEntry, read_shard
from ada2i.errors import AccessError
from ada2i.modalities import Modality

_ROWS = 4096
_LAYOUT = 2  # of the decoded files; another layout has other names

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Chunk:
    """One memory-mapped shard; vectors are views of the file."""

    features: dict[Modality, Floats]
    present: dict[Modality, npt.NDArray[np.bool_]]
    labels: npt.NDArray[np.int64]
    speakers: npt.NDArray[np.int64]


@dataclass(frozen=True)
class SplitData:
    """All dialogues of a split.

    Attributes:
        dialogue_ids: By dialogue.
        lengths: ``(D,)`` utterances of each dialogue.
    """

    dialogue_ids: tuple[str, ...]
    lengths: npt.NDArray[np.int64]
    chunks: tuple[_Chunk, ...]
    homes: tuple[tuple[int, int], ...]  # by dialogue: its chunk and first row there

    def batch(self, own: Sequence[int], of: Sequence[int]) -> DialogueBatch:
        """Assemble one rank's share of a global batch.

        Args:
            own: This rank's dialogues; where it has none, it borrows the first of the batch, uncounted.
            of: All dialogues of the global batch.
        """
        dialogues = own or of[:1]
        rows = [self._rows(d) for d in dialogues]
        modalities = tuple(self.chunks[0].features)
        return DialogueBatch(
            features={m: torch.from_numpy(np.concatenate([c.features[m][at] for c, at in rows])) for m in modalities},
            present={m: torch.from_numpy(np.concatenate([c.present[m][at] for c, at in rows])) for m in modalities},
            labels=torch.from_numpy(np.concatenate([c.labels[at] for c, at in rows])),
            speakers=torch.from_numpy(np.concatenate([_by_appearance(c.speakers[at]) for c, at in rows])),
            layout=Layout(tuple(int(self.lengths[d]) for d in dialogues), int(self.lengths[list(of)].max())),
            global_utterances=int(self.lengths[list(of)].sum()),
            global_dialogues=len(of),
            counted=bool(own),
        )

    def class_counts(self, classes: int) -> npt.NDArray[np.int64]:
        """Return the utterances of each class, ``(classes,)``."""
        return np.asarray(sum(np.bincount(chunk.labels, minlength=classes) for chunk in self.chunks))

    def statistics(self, modality: Modality) -> tuple[Floats, Floats]:
        """Return mean and deviation of a modality's features, ``(W,)`` each, over the utterances that have it."""
        width = self.chunks[0].features[modality].shape[1]
        count, total, square = 0, np.zeros(width), np.zeros(width)
        for chunk in self.chunks:
            for start in range(0, len(chunk.labels), _ROWS):  # a few megabytes at a time
                rows = chunk.features[modality][start : start + _ROWS]
                rows = rows[chunk.present[modality][start : start + _ROWS]].astype(np.float64)
                count, total, square = count + len(rows), total + rows.sum(axis=0), square + (rows**2).sum(axis=0)
        mean = total / max(count, 1)
        variance = np.maximum(square / max(count, 1) - mean**2, 0)
        variance[variance <= 1e-12 * mean**2] = 0.0  # what rounding leaves of a constant
        return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)

    def _rows(self, dialogue: int) -> tuple[_Chunk, slice]:
        chunk, start = self.homes[dialogue]
        return self.chunks[chunk], slice(start, start + int(self.lengths[dialogue]))


def open_split(
    features: FeatureSet,
    split: str,
    modalities: Sequence[Modality],
    *,
    part: tuple[int, int] = (0, 1),
    wait: Callable[[], None] = lambda: None,
) -> SplitData:
    """Decode this worker's part of a split's shards, wait for the others, and map them all.

    Args:
        features: The feature set.
        split: ``train``, ``dev`` or ``test``; shards of other splits stay closed.
        modalities: Which vectors to read.
        part: This worker's place among the workers of its machine, and their number.
        wait: Returns once all workers have decoded theirs.

    Raises:
        IntegrityError: A shard differs from the digest in the manifest.
    """
    cache = _cache_folder()
    shards = features.shards(split)
    place, workers = part
    for shard in shards[place::workers]:
        _decode(features, shard, cache)
    wait()
    tables = [_map(_cached(cache, shard)) for shard in shards]
    dialogues = [_dialogues(table) for table in tables]
    return SplitData(
        dialogue_ids=tuple(name for names, _, _ in dialogues for name in names),
        lengths=np.concatenate([lengths for _, _, lengths in dialogues]),
        chunks=tuple(_chunk(table, modalities) for table in tables),
        homes=tuple((i, int(start)) for i, (_, starts, _) in enumerate(dialogues) for start in starts),
    )


def _cache_folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"ada2i-features-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    # Anyone may make a folder of that name first: features from a stranger must not be trained on.
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise AccessError(f"{folder} must belong to the user who trains, but does not. Delete it, or set TMPDIR.")
    return folder


def _cached(cache: Path, shard: ShardEntry) -> Path:
    return cache / f"{shard.sha256}.{_LAYOUT}.arrow"


def _numbered(names: Any) -> npt.NDArray[np.int64]:
    """Return a number for each name; nulls count as one name."""
    encoded: Any = pc.dictionary_encode(names.combine_chunks(), null_encoding="encode")
    return np.asarray(encoded.indices.to_numpy(zero_copy_only=False), dtype=np.int64)


def _by_appearance(speakers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Number the speakers of one dialogue from 0, in the order in which they first speak."""
    _, first, index = np.unique(speakers, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[index].astype(np.int64)


def _decode(features: FeatureSet, shard: ShardEntry, cache: Path) -> None:
    target = _cached(cache, shard)
    if _is_whole(target):
        return
    table = read_shard(features, shard)
    columns: dict[str, Any] = {"dialogue_id": table["dialogue_id"], "label": table["label"].cast(pa.int64())}
    columns["speaker"] = _numbered(table["speaker"])
    for modality in features.manifest.modalities:
        values, present = schema.unpack_vectors(table[schema.vector_column(modality)])
        columns[f"{modality}_present"] = present
        columns[modality] = schema.pack_vectors(values, np.ones_like(present))  # zeros, not nulls, where missing
    # Complete under its final name, or absent: a kill leaves a .partial file, which nobody reads.
    partial = cache / f".partial-{uuid.uuid4().hex}"
    flat = pa.table(columns).combine_chunks()
    with pa.OSFile(str(partial), "wb") as file, pa.ipc.new_file(file, flat.schema) as writer:
        writer.write_table(flat, max_chunksize=max(flat.num_rows, 1))
    with partial.open("rb") as written:
        os.fsync(written.fileno())
    partial.replace(target)


def _is_whole(path: Path) -> bool:
    """Tell whether a decoded file is there and complete; one that a power cut truncated is decoded again."""
    try:
        _map(path)
    except (OSError, pa.ArrowInvalid):
        return False
    return True


def _map(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _dialogues(table: pa.Table) -> tuple[list[str], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return ids, first rows and lengths of a shard's dialogues, which are contiguous."""
    runs = pc.run_end_encode(table["dialogue_id"].combine_chunks())  # type: ignore[attr-defined]  # the stubs miss it
    ends = np.asarray(runs.run_ends.to_numpy(), dtype=np.int64)
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    return runs.values.to_pylist(), starts, ends - starts


def _chunk(table: pa.Table, modalities: Sequence[Modality]) -> _Chunk:
    def column(name: str) -> Any:
        return table[name].chunk(0)  # the only one; combining even one chunk copies it

    return _Chunk(
        features={m: _vectors(column(m)) for m in modalities},
        present={m: column(f"{m}_present").to_numpy(zero_copy_only=False) for m in modalities},
        labels=column("label").to_numpy(),
        speakers=column("speaker").to_numpy(),
    )


def _vectors(column: Any) -> Floats:
    flat: Floats = column.values.to_numpy(zero_copy_only=True)
    return flat.reshape(-1, column.type.list_size)
