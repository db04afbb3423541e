"""Imports a corpus from Parquet files of anyone's making: every check comes before the first byte is written.

Shape letters in this file:
    N utterances of all files, laid end to end
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ada2i.data import schema, shards
from ada2i.data.checks import check_keys, check_order, checked_vectors, with_splits
from ada2i.data.labels import classes
from ada2i.data.manifest import require_modalities
from ada2i.data.rows import Column, Rows
from ada2i.data.source import read_rows
from ada2i.data.splits import DEV_RULE, cut_dev
from ada2i.modalities import MODALITIES, Modality

Vectors = Mapping[Modality, "pa.Array[Any]"]


def import_table(
    source: str,
    root: str,
    *,
    dataset: str | None = None,
    labels: tuple[str, ...] | None = None,
    needs: Sequence[Modality] = (),
) -> str:
    """Import a Parquet file, or all below a folder, as a feature set.

    A row is an utterance: ``dialogue_id`` (text or integers), ``utterance_index`` (0-based, contiguous), ``label``
    (class indices or names), ``split``, optionally ``utterance_id``, ``speaker`` and ``text``, and lists of numbers per
    modality in ``text_feat``, ``audio_feat`` and ``visual_feat`` (or ``text``, ``audio``, ``visual``), null where the
    modality is missing. Rows may come in any order; other columns are ignored. Where no row is of dev, ``DEV_RULE``
    cuts it from train.

    Args:
        source: A path, or any URI that fsspec opens.
        root: The storage root.
        dataset: Name of the set; else the Parquet key ``dataset``, else the name of the file or folder.
        labels: Class names by index; else the Parquet key ``label_names``, else the distinct names (sorted) or indices
            in train.
        needs: Modalities that it must hold.

    Returns:
        The URI of the set; of the same content, always the same, and written once.

    Raises:
        DataError: Something in the source is not what it must be. Nothing was written.
    """
    rows = read_rows(source)
    require_modalities(source, held=[m for m in MODALITIES if schema.vector_column(m) in rows.names], needs=needs)
    check_keys(rows)
    rows = with_splits(rows)
    check_order(rows)
    names, indices = classes(rows, labels)
    vectors = {m: checked_vectors(rows, m) for m in MODALITIES if schema.vector_column(m) in rows.names}
    split, dev_rule = _with_dev(rows)
    return shards.write_features(
        root,
        _table(rows, split, indices, vectors),
        dataset=_plain_name(dataset or _recorded(rows, "dataset") or _last_part(source)),
        synthetic=False,
        labels=names,
        encoders={m: _recorded(rows, f"{m}_encoder") or _recorded(rows, "encoder") or "imported" for m in vectors},
        dev_rule=dev_rule,
        source=_provenance(rows),
    )


def _with_dev(rows: Rows) -> tuple[Column, str | None]:
    """Return ``(N,)`` splits, dev cut from train where there is none, and the rule of the cut."""
    split, dialogue = rows.columns["split"], rows.columns["dialogue_id"]
    if "dev" in pc.unique(split).to_pylist():
        return split, None
    train = pc.equal(split, pa.scalar("train"))
    chosen = cut_dev([str(name) for name in pc.unique(dialogue.filter(train)).to_pylist()], uri=rows.source)
    cut = pc.is_in(dialogue, value_set=pa.array(sorted(chosen), pa.string()))
    return pc.if_else(pc.and_(train, cut), pa.scalar("dev"), split), DEV_RULE


def _table(rows: Rows, split: Column, label: NDArray[np.int32], vectors: Vectors) -> pa.Table:
    """Return ``N`` utterances with the columns of a shard; an utterance without an id gets dialogue and index."""
    columns = rows.columns
    number: Column = columns["utterance_index"].cast(pa.string())
    made = pc.binary_join_element_wise(columns["dialogue_id"], number, pa.scalar("_"))  # type: ignore[call-overload]
    data: dict[str, Any] = {name: columns[name] for name in ("dialogue_id", "speaker", "text")}
    data |= {
        "utterance_index": columns["utterance_index"].cast(pa.int32()),
        "utterance_id": pc.coalesce(columns["utterance_id"], made),
        "label": label,
        "split": split,
    }
    data |= {schema.vector_column(m): column for m, column in vectors.items()}
    shape = schema.shard_schema({m: column.type.list_size for m, column in vectors.items()})
    return pa.table(data, schema=shape)


# --- what a set says about itself ---


def _recorded(rows: Rows, key: str) -> str | None:
    """Return what the files record under a Parquet key: each different value once."""
    return "; ".join(dict.fromkeys(file.metadata[key] for file in rows.files if file.metadata.get(key))) or None


def _provenance(rows: Rows) -> str:
    recorded = _recorded(rows, "source")
    return f"table {rows.source}" + (f" (from {recorded})" if recorded else "")


def _last_part(source: str) -> str:
    path = source if "://" in source else str(Path(source).expanduser().resolve())
    return path.rstrip("/").rpartition("/")[2].removesuffix(".parquet")


def _plain_name(name: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._") or "table"
