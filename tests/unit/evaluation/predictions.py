"""Files of predictions as an evaluation writes them, of models as good as a test wants."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ada2i.loader.chunks import MappedShards
from ada2i.loader.index import Index
from ada2i.loader.order import Shards
from ada2i.loader.split_data import SplitData


def columns(*, dialogues: int = 31, classes: int = 3, right: float = 0.6, seed: int = 1) -> dict[str, list[Any]]:
    """Columns of dialogues d0, d1...; labels are the same for every seed and share of right predictions."""
    lengths = np.random.RandomState(0).randint(5, 30, size=dialogues)
    labels = np.random.RandomState(2).randint(classes, size=lengths.sum())
    random = np.random.RandomState(seed)
    wrong = (labels + random.randint(1, classes, size=labels.size)) % classes
    said = np.where(random.uniform(size=labels.size) < right, labels, wrong)
    return {
        "dialogue_id": [f"d{d}" for d, length in enumerate(lengths) for _ in range(length)],
        "utterance_index": [u for length in lengths for u in range(length)],
        "label": labels.tolist(),
        "prediction": said.tolist(),
        "probabilities": np.eye(classes, dtype=np.float32)[said].tolist(),
    }


def stored(values: Mapping[str, Sequence[Any]]) -> bytes:
    """Return the columns as a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(pa.table({name: pa.array(column) for name, column in values.items()}), buffer)
    return buffer.getvalue()


def predictions(*, dialogues: int = 31, classes: int = 3, right: float = 0.6, seed: int = 1) -> bytes:
    """Return a file of predictions."""
    return stored(columns(dialogues=dialogues, classes=classes, right=right, seed=seed))


def split_of(lengths: Mapping[str, int]) -> SplitData:
    """Return a split of dialogues that holds no features."""
    index = Index(
        pa.chunked_array([list(lengths)], pa.string()), np.array([*lengths.values()]), np.array([0, len(lengths)])
    )
    return SplitData(index, MappedShards(()), Shards(index.edges, np.array([1]), 1.0), (), np.zeros(0, np.int64))
