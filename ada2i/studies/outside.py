"""Predictions that were made elsewhere, in the form in which a version's predictions are stored.

A table of any format of ``ada2i import table`` has a row per utterance: ``dialogue_id``, ``utterance_index``, and a
column ``p_<class>`` for each class, or ``label`` with the predicted class (its name or index).
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ada2i import storage
from ada2i.data.manifest import FeatureSet, read_shard_bytes
from ada2i.data.parquet import from_parquet, to_parquet
from ada2i.data.schema import Column, with_column
from ada2i.display import count
from ada2i.errors import DataError
from ada2i.importers.source import has_table_suffix, table_files
from ada2i.records import UNLABELLED

log = logging.getLogger(__name__)

_KEYS = ("dialogue_id", "utterance_index")
_LABEL = "label"
_CHANCE = "p_"


def test_labels(features: FeatureSet) -> pa.Table:
    """Return ``dialogue_id``, ``utterance_index`` and ``label`` of the labelled utterances of a set's test split."""
    parts = [
        from_parquet(read_shard_bytes(features, entry), columns=[*_KEYS, _LABEL]) for entry in features.shards("test")
    ]
    table = pa.concat_tables(parts)
    return table.filter(pc.not_equal(table[_LABEL], pa.scalar(UNLABELLED)))


def is_table(text: str) -> bool:
    """Return whether a text names a table and not a version: it has a ``/`` or a table's suffix."""
    return "/" in text or has_table_suffix(text)


def outside_predictions(source: str, truth: pa.Table, labels: Sequence[str]) -> bytes:
    """Return predictions from elsewhere as a ``predictions.parquet`` with a row per utterance of ``truth``.

    Args:
        source: The table.
        truth: ``dialogue_id``, ``utterance_index`` and ``label`` (class indices) of the utterances to be predicted.
        labels: The classes by index.

    Raises:
        DataError: A column or an utterance is missing, an utterance occurs twice, a class is unknown, or a probability
            is not between 0 and 1.
    """
    shown = storage.public(source)
    tables = [file.read(_columns(file.columns, labels, file.uri)) for file in table_files(source)]
    table = pa.concat_tables([_with_keys(table, shown) for table in tables], promote_options="permissive")
    places = _places(table, truth, shown)
    if left := table.num_rows - len(places):
        log.warning("%s of %s: no labelled test utterance; left out.", count(left, "row"), shown)
    chances = _chances(table.take(places), labels, shown)
    if _LABEL in table.column_names and (chances.argmax(axis=1) == truth[_LABEL].to_numpy()).all():
        log.warning("Every `label` of %s is the true class: is it the prediction? Rename the column that is.", shown)
    rows = {name: truth[name] for name in (*_KEYS, _LABEL)}
    rows["prediction"] = pa.chunked_array([pa.array(chances.argmax(axis=1))])
    flat = pa.array(chances.astype(np.float32).reshape(-1))
    rows["probabilities"] = pa.chunked_array([pa.FixedSizeListArray.from_arrays(flat, len(labels))])
    return to_parquet(pa.table(rows))


def _columns(held: Sequence[str], labels: Sequence[str], uri: str) -> list[str]:
    """Return the columns to read: the keys with each class's probability, or with the predicted class."""
    chances = [f"{_CHANCE}{name}" for name in labels]
    found = [name for name in chances if name in held]
    wanted = [*_KEYS, *(chances if found else [_LABEL])]
    if missing := [name for name in wanted if name not in held]:
        raise DataError(
            f"{uri} must have the columns dialogue_id, utterance_index, and {', '.join(chances)} (or `label`), but "
            f"lacks {', '.join(missing)} and has {', '.join(held)}. Add them, or rename the columns that hold them.",
            uri=uri,
            field=missing[0],
        )
    return wanted


def _with_keys(table: pa.Table, shown: str) -> pa.Table:
    """Return a table with dialogues as text and indices as numbers, as in feature sets."""
    try:
        dialogue = table["dialogue_id"].cast(pa.string())
        index = table["utterance_index"].cast(pa.int64())
    except pa.ArrowInvalid as problem:
        raise DataError(
            f"`utterance_index` of {shown} must hold whole numbers, but: {str(problem).splitlines()[0]}. Correct it.",
            uri=shown,
            field="utterance_index",
        ) from problem
    return with_column(with_column(table, "dialogue_id", dialogue), "utterance_index", index)


def _places(table: pa.Table, truth: pa.Table, shown: str) -> list[int]:
    """Return the row of each utterance of ``truth``."""
    rows: dict[tuple[object, ...], int] = {}
    for row, key in enumerate(_keys(table)):
        if rows.setdefault(key, row) != row:
            raise DataError(
                f"{shown} must predict each utterance once, but rows {rows[key]} and {row} (counted from 0) both "
                f"predict dialogue {key[0]}, utterance {key[1]}. Keep one of them.",
                uri=shown,
                row=row,
            )
    wanted = list(_keys(truth))
    if missing := [key for key in wanted if key not in rows]:
        raise DataError(
            f"{shown} must predict all {count(len(wanted), 'labelled utterance')} of the test split, but lacks "
            f"{len(missing)}, first dialogue {missing[0][0]}, utterance {missing[0][1]}. Predict them as well; "
            "`utterance_index` counts from 0, and dialogues have the ids of the feature set.",
            uri=shown,
        )
    return [rows[key] for key in wanted]


def _keys(table: pa.Table) -> "zip[tuple[object, ...]]":
    return zip(*(table[name].to_pylist() for name in _KEYS), strict=True)


def _chances(table: pa.Table, labels: Sequence[str], shown: str) -> NDArray[np.float64]:
    """Return ``(N, C)`` probabilities; 1 for the predicted class if there are none."""
    if _LABEL in table.column_names:
        return np.eye(len(labels))[_classes(table[_LABEL], labels, shown)]
    chances = np.stack([_numbers(table[f"{_CHANCE}{name}"], f"{_CHANCE}{name}", shown) for name in labels], axis=1)
    wrong = ~((chances >= 0) & (chances <= 1))  # NaN is neither
    if wrong.any():
        row, place = np.argwhere(wrong)[0]
        raise DataError(
            f"`{_CHANCE}{labels[place]}` of {shown} must hold probabilities between 0 and 1, but that of dialogue "
            f"{table['dialogue_id'][row]}, utterance {table['utterance_index'][row]}, is {chances[row, place]:g}. "
            "Apply a softmax to logits.",
            uri=shown,
            field=f"{_CHANCE}{labels[place]}",
        )
    return chances


def _numbers(column: Column, name: str, shown: str) -> NDArray[np.float64]:
    try:
        return np.asarray(column.cast(pa.float64()).to_numpy())
    except pa.ArrowInvalid as problem:
        raise DataError(
            f"`{name}` of {shown} must hold numbers, but: {str(problem).splitlines()[0]}. Correct it.",
            uri=shown,
            field=name,
        ) from problem


def _classes(column: Column, labels: Sequence[str], shown: str) -> NDArray[np.int64]:
    """Return class indices of names or indices."""
    known: dict[Any, int] = {name: place for place, name in enumerate(labels)}
    known |= {place: place for place in range(len(labels))}
    values = column.to_pylist()
    wrong = next((row for row, value in enumerate(values) if value not in known), None)
    if wrong is not None:
        raise DataError(
            f"`label` of {shown} must hold classes of the test split ({', '.join(labels)}) or their indices, but row "
            f"{wrong} of those that are compared has {values[wrong]!r}. Correct it.",
            uri=shown,
            row=wrong,
            field=_LABEL,
        )
    return np.array([known[value] for value in values], dtype=np.int64)
