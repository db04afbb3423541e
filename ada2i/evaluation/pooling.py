"""Pools the predictions of a run's seeds into those of one model, by dialogue.

A dialogue keeps its id, so that a resampled dialogue brings all seeds' predictions of it: utterances of one dialogue
are not independent of each other, and neither are two seeds' predictions of one utterance.

Shape letters in this file:
    D dialogues     C classes
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ada2i.data.parquet import from_parquet, to_parquet
from ada2i.data.schema import with_column
from ada2i.evaluation.metrics import Counts, by_dialogue


def pool(files: Sequence[bytes]) -> bytes:
    """Return one ``predictions.parquet`` with the rows of all; each further one continues the utterances' numbers.

    Args:
        files: Files of predictions for the same utterances.
    """
    tables = [from_parquet(data) for data in files]
    step = 1 + max(pc.max(table["utterance_index"]).as_py() for table in tables)
    return to_parquet(pa.concat_tables(_moved(table, number * step) for number, table in enumerate(tables)))


def _moved(table: pa.Table, by: int) -> pa.Table:
    index = pc.add(table["utterance_index"].cast(pa.int64()), by)
    return with_column(table, "utterance_index", index)


def dialogue_counts(data: bytes) -> Counts:
    """Return confusion counts by dialogue, ``(D, C, C)``, of a file of predictions."""
    table = from_parquet(data).sort_by("dialogue_id")
    true, predicted = (table[column].to_numpy() for column in ("label", "prediction"))
    lengths = np.unique(np.asarray(table["dialogue_id"].to_pylist()), return_counts=True)[1]
    return by_dialogue(true, predicted, lengths, len(table["probabilities"][0].as_py()))
