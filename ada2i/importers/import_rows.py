"""The one path by which a corpus of anyone's making becomes a feature set: every check comes before the first byte.

Shape letters in this file:
    N utterances of all files, laid end to end
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ada2i.data import schema, shards
from ada2i.data.manifest import require_modalities
from ada2i.data.schema import Column
from ada2i.data.splits import DEV_RULE, GATE_RULE, GATE_SHARE, cut_dev, cut_gate
from ada2i.importers.checks import check_keys, check_order, checked_vectors, with_splits
from ada2i.importers.labels import classes
from ada2i.importers.rows import Rows
from ada2i.modalities import MODALITIES, Modality

Vectors = Mapping[Modality, "pa.Array[Any]"]


def import_rows(
    rows: Rows,
    root: str,
    *,
    dataset: str,
    labels: tuple[str, ...] | None,
    source: str,
    encoders: Mapping[Modality, str] | None = None,
    needs: Sequence[Modality] = (),
    counted: bool = True,
    synthetic: bool = False,
    extraction: shards.Extraction | None = None,
    gate_share: float = GATE_SHARE,
) -> str:
    """Check rows and write them as a feature set; ``GATE_RULE`` and ``DEV_RULE`` cut from train what has no row.

    Args:
        rows: What a source holds, in any order.
        root: The storage root.
        dataset: Name of the set, written plainly in it.
        labels: Class names by index; else what the files record, else the distinct names or indices in train.
        source: Where the values come from, for people.
        encoders: By modality, what made the vectors; else what the files record.
        needs: Modalities that it must hold.
        counted: Whether ``source`` is followed by the numbers of missing and of zero vectors.
        synthetic: Whether the values were made up.
        extraction: How the vectors were extracted, if they were extracted here.
        gate_share: Share of train's dialogues with a time that becomes the gate, where no row is of it.

    Returns:
        The URI of the set; of the same content, always the same, and written once.

    Raises:
        DataError: Something is not what it must be. Nothing was written.
    """
    held = [m for m in MODALITIES if schema.vector_column(m) in rows.names]
    require_modalities(rows.source, held=held, needs=needs)
    check_keys(rows)
    rows = with_splits(rows)
    check_order(rows)
    names, indices = classes(rows, labels)
    vectors = {m: checked_vectors(rows, m) for m in held}
    rows, gate_rule = _with_gate(rows, gate_share)
    split, dev_rule = _with_dev(rows)
    given = encoders or {}
    return shards.write_features(
        root,
        _table(rows, split, indices, vectors),
        dataset=_plain_name(dataset),
        synthetic=synthetic,
        labels=names,
        encoders={m: given.get(m) or rows.encoder(m) for m in held},
        dev_rule=dev_rule,
        gate_rule=gate_rule,
        source=f"{source}; {_vector_counts(vectors)}" if counted else source,
        extraction=extraction,
    )


def _with_gate(rows: Rows, share: float) -> tuple[Rows, str | None]:
    """Return the rows, with a gate cut from train if there is no gate and times are known, and the rule of the cut."""
    columns = rows.columns
    split, dialogue = columns["split"], columns["dialogue_id"]
    if not share or "recorded_at" not in columns.column_names or "gate" in pc.unique(split).to_pylist():
        return rows, None
    train = pc.equal(split, pa.scalar("train"))
    known = columns.filter(pc.and_(train, columns["recorded_at"].is_valid()))
    newest = known.group_by("dialogue_id").aggregate([("recorded_at", "max")])
    names, times = (newest[name].to_pylist() for name in ("dialogue_id", "recorded_at_max"))
    recorded: dict[Any, Any] = dict(zip(names, times, strict=True))
    if not recorded:
        return rows, None
    chosen = pc.is_in(dialogue, value_set=pa.array(sorted(cut_gate(recorded, share)), pa.string()))
    cut: Column = pc.if_else(pc.and_(train, chosen), pa.scalar("gate"), split)
    place = columns.schema.get_field_index("split")
    return replace(rows, columns=columns.set_column(place, "split", cut)), GATE_RULE.format(share=share)


def _with_dev(rows: Rows) -> tuple[Column, str | None]:
    """Return ``(N,)`` splits, with dev cut from train if there is no dev, and the rule of the cut."""
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
    data: dict[str, Any] = {name: columns[name] for name in ("dialogue_id", "speaker", "text")}
    data |= {
        "utterance_index": columns["utterance_index"].cast(pa.int32()),
        "utterance_id": pc.coalesce(columns["utterance_id"], made_ids(columns)),
        "label": label,
        "split": split,
    }
    data |= {schema.vector_column(m): column for m, column in vectors.items()}
    shape = schema.shard_schema({m: column.type.list_size for m, column in vectors.items()})
    return pa.table(data, schema=shape)


def made_ids(columns: pa.Table) -> Column:
    """Return an id for each utterance: its dialogue and its index."""
    number: Column = columns["utterance_index"].cast(pa.string())
    ids: Column = pc.binary_join_element_wise(columns["dialogue_id"], number, pa.scalar("_"))  # type: ignore[call-overload]
    return ids


def _vector_counts(vectors: Vectors) -> str:
    """Return the numbers of missing and of all-zero vectors, in words."""
    missing = {m: column.null_count for m, column in vectors.items()}
    zero = {m: _zeros(column) for m, column in vectors.items()}
    return f"missing vectors: {_listed(missing)}; zero vectors: {_listed(zero)}"


def _zeros(column: "pa.Array[Any]") -> int:
    values, present = schema.unpack_vectors(pa.chunked_array([column]))
    return int(np.count_nonzero(present & ~values.any(axis=1)))


def _listed(counts: Mapping[Modality, int]) -> str:
    return ", ".join(f"{modality} {number}" for modality, number in counts.items() if number) or "none"


def _plain_name(name: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._") or "table"
