"""Small tables to import and write, right unless a test makes them wrong."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ada2i.data import schema
from ada2i.modalities import Modality

Columns = dict[str, list[Any]]

WIDTHS: dict[Modality, int] = {"text": 3, "audio": 2}


def corpus(lengths: Sequence[tuple[str, int]] = (("train", 2), ("train", 3), ("dev", 1), ("test", 2))) -> Columns:
    """Columns of dialogues d0, d1..., given by split and number of utterances; labels alternate 0, 1."""
    rows = [(f"d{d}", u, split) for d, (split, length) in enumerate(lengths) for u in range(length)]
    number = len(rows)
    return {
        "dialogue_id": [dialogue for dialogue, _, _ in rows],
        "utterance_index": [index for _, index, _ in rows],
        "label": [row % 2 for row in range(number)],
        "split": [split for _, _, split in rows],
        "text_feat": [[row + 0.5, -1.0, 2.0] for row in range(number)],
        "audio_feat": [None if row == 1 else [0.25, float(row)] for row in range(number)],
    }


def write(path: Path, columns: Columns, types: dict[str, pa.DataType] | None = None, **metadata: str) -> Path:
    """Write columns as a Parquet file, with types where inference must not choose."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: pa.array(values, (types or {}).get(name)) for name, values in columns.items()}
    pq.write_table(pa.table(arrays).replace_schema_metadata(dict(metadata) or None), path)
    return path


def shard_table(lengths: Sequence[tuple[str, str, int]], seed: int = 0) -> pa.Table:
    """A table as shards hold it, of dialogues given by split, id and number of utterances."""
    random = np.random.RandomState(seed)
    rows = [(split, name, index) for split, name, length in lengths for index in range(length)]
    data: dict[str, Any] = {
        "dialogue_id": [name for _, name, _ in rows],
        "utterance_index": [index for _, _, index in rows],
        "utterance_id": [f"{name}_{index}" for _, name, index in rows],
        "speaker": [None if index % 3 else "A" for _, _, index in rows],
        "text": [None if index % 2 else "ü" * index for _, _, index in rows],
        "label": random.randint(0, 2, len(rows)).tolist(),
        "split": [split for split, _, _ in rows],
    }
    for modality, width in WIDTHS.items():
        values = random.standard_normal((len(rows), width)).astype(np.float32)
        data[schema.vector_column(modality)] = schema.pack_vectors(values, random.random_sample(len(rows)) > 0.2)
    return pa.table(data, schema=schema.shard_schema(WIDTHS))


def written(root: Path) -> list[str]:
    """Everything under a storage root."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*")) if root.exists() else []


def sort_rows(table: pa.Table) -> pa.Table:
    """Return the rows in shard order: by split, dialogue and utterance."""
    return table.take(pc.sort_indices(table, [(key, "ascending") for key in schema.SORT_KEYS]))
