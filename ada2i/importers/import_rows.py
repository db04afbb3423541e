"""The single path from rows of a corpus to a feature set; all checks run before the first byte is written.

Shape letters in this file:
    N utterances of all files, concatenated
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ada2i import storage
from ada2i.data import schema, shards, spool
from ada2i.data.manifest import FeatureSet, require_modalities
from ada2i.data.schema import Column
from ada2i.data.splits import DEV_RULE, GATE_RULE, GATE_SHARE, cut_dev, cut_gate
from ada2i.errors import DataError
from ada2i.importers.checks import check_keys, check_order, check_vectors, checked_targets, packed, with_splits
from ada2i.importers.labels import classes
from ada2i.importers.rows import Rows
from ada2i.modalities import MODALITIES, Modality

_LATEST = ["dialogue_id", "time"]
_MOVED = 1 << 20  # rows whose split is decided at once


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
    """Check rows and write them as a feature set; missing splits are cut from train by ``GATE_RULE`` and ``DEV_RULE``.

    Args:
        rows: The rows of a source, in any order.
        root: The storage root.
        dataset: Name of the set, already valid.
        labels: Class names by index; by default those of the files, else the distinct names or indices in train.
        source: Origin of the values, as text for people.
        encoders: By modality, what made the vectors; by default what the files record.
        needs: Modalities that the set must hold.
        counted: Whether the numbers of missing and of zero vectors are appended to ``source``.
        synthetic: Whether the values are synthetic.
        extraction: How the vectors were extracted, if by this project.
        gate_share: Share of train's dialogues with a time that becomes the gate, if no row belongs to the gate.

    Returns:
        The URI of the set; the same content always gets the same URI and is written once.

    Raises:
        DataError: A check failed; nothing was written.
    """
    base = rows.base.manifest if rows.base else None
    held = [m for m in MODALITIES if schema.vector_column(m) in rows.names]
    require_modalities(rows.source, held=held, needs=needs)
    check_keys(rows)
    rows = with_splits(rows)
    check_order(rows)
    names, indices = classes(rows, labels or (base.labels if base else None))
    widths, targets = {m: check_vectors(rows, m) for m in held}, checked_targets(rows)
    rows, gate_rule, dev_rule = with_cuts(rows, gate_share)
    given = encoders or {}
    extraction = extraction or _carried(rows.base, [m for m in held if m not in given])
    return shards.write_features(
        root,
        _pieces(rows, indices, widths, targets),
        dataset=plain_name(dataset),
        synthetic=synthetic or rows.recorded("synthetic") == "true",
        labels=names,
        encoders={m: given.get(m) or rows.encoder(m) for m in held},
        dev_rule=dev_rule or (base.dev_rule if base else None),
        gate_rule=gate_rule or (base.gate_rule if base else None),
        split_rule=rows.split_rule or (base.split_rule if base else None),
        source=f"{source}; {_vector_counts(rows, widths)}" if counted else source,
        extraction=extraction,
        unused=rows.unused,
    )


def with_cuts(rows: Rows, gate_share: float) -> tuple[Rows, str | None, str | None]:
    """Return the rows, and the rules by which a gate and a dev split were cut from train; None if they were not.

    Raises:
        DataError: Train is left with too few dialogues.
    """
    rows, gate_rule = _with_gate(rows, gate_share)
    rows, dev_rule = _with_dev(rows)
    return rows, gate_rule, dev_rule


def _carried(base: FeatureSet | None, modalities: Sequence[Modality]) -> shards.Extraction | None:
    """Return the origin of vectors that are carried over from an extracted set; its files are not carried over."""
    if base is None or (origin := base.manifest.origin) is None:
        return None
    kept = {m: origin.modalities[m] for m in modalities if m in origin.modalities}
    recipe = origin.recipe if kept == origin.modalities else None  # it lists the encoders of all modalities
    origin = origin.model_copy(update={"modalities": kept, "recipe": recipe})
    return shards.Extraction(base.manifest.fingerprint, origin, lambda *_: {})


def _with_gate(rows: Rows, share: float) -> tuple[Rows, str | None]:
    """Return the rows and the rule of the cut, after cutting a gate from train if there is none and times are known."""
    columns = rows.columns
    if not share or "recorded_at" not in columns.column_names or "gate" in pc.unique(columns["split"]).to_pylist():
        return rows, None
    recorded = _newest(columns)
    if not len(recorded):
        return rows, None
    return _moved(rows, cut_gate(recorded, share), "gate"), GATE_RULE.format(share=share)


def _newest(columns: pa.Table) -> pa.Table:
    """Return the time of the last utterance of each dialogue of train that has one, in microseconds since 1970."""
    parts = []
    for part in spool.pieces(columns.select(["dialogue_id", "recorded_at", "split"])):
        known = part.filter(pc.and_(pc.equal(part["split"], pa.scalar("train")), part["recorded_at"].is_valid()))
        times = known["recorded_at"].cast(pa.int64())  # as numbers, since Python's times end with the year 9999
        parts.append(_latest(pa.table([known["dialogue_id"], times], names=_LATEST)))
    return _latest(pa.concat_tables(parts))


def _latest(times: pa.Table) -> pa.Table:
    return times.group_by("dialogue_id").aggregate([("time", "max")]).rename_columns({"time_max": "time"})


def _moved(rows: Rows, dialogues: Any, split: str) -> Rows:
    """Return the rows after moving some dialogues of train to another split."""

    def splits() -> Iterator[pa.Table]:
        for begin in range(0, rows.columns.num_rows, _MOVED):
            part = rows.columns.slice(begin, _MOVED)
            chosen: Any = pc.is_in(part["dialogue_id"], value_set=dialogues)
            chosen = pc.and_(chosen, pc.equal(part["split"], pa.scalar("train")))
            yield pa.table({"split": pc.if_else(chosen, pa.scalar(split), part["split"])})
            spool.release()

    return rows.with_column("split", spool.stored(splits())["split"])


def _with_dev(rows: Rows) -> tuple[Rows, str | None]:
    """Return the rows and the rule of the cut, after cutting dev from train if there is none."""
    if "dev" in pc.unique(rows.columns["split"]).to_pylist():
        return rows, None
    return _moved(rows, cut_dev(_of_train(rows.columns), uri=rows.source), "dev"), DEV_RULE


def _of_train(columns: pa.Table) -> Any:
    """Return the ids of train's dialogues, some of them more than once."""
    parts = spool.pieces(columns.select(["dialogue_id", "split"]))
    train: Any = [pc.unique(part["dialogue_id"].filter(pc.equal(part["split"], pa.scalar("train")))) for part in parts]
    return pa.chunked_array(train, columns.schema.field("dialogue_id").type)


def _pieces(
    rows: Rows, label: NDArray[np.int32], widths: Mapping[Modality, int], targets: "pa.Array[Any] | None"
) -> shards.Pieces:
    """Return ``N`` utterances with the columns of a shard."""
    shape = schema.shard_schema(widths, targets=targets is not None)

    def made() -> Iterator[pa.Table]:
        begin = 0
        for columns in spool.pieces(rows.columns):
            end = begin + columns.num_rows
            data = plain_columns(columns) | {"split": columns["split"], "label": label[begin:end]}
            data |= {schema.vector_column(m): packed(columns[schema.vector_column(m)], widths[m]) for m in widths}
            data |= {schema.TARGET.name: targets[begin:end]} if targets is not None else {}
            yield pa.table(data, schema=shape)
            begin = end

    return shards.Pieces(rows.columns.select(list(schema.SORT_KEYS)), shape, made)


def plain_columns(columns: pa.Table) -> dict[str, Any]:
    """Return ids, speakers and texts as a shard stores them; a missing utterance id becomes dialogue and index."""
    number: Column = columns["utterance_index"].cast(pa.string())
    ids = pc.binary_join_element_wise(columns["dialogue_id"], number, pa.scalar("_"))  # type: ignore[call-overload]
    return {
        "dialogue_id": columns["dialogue_id"],
        "utterance_index": columns["utterance_index"].cast(pa.int32()),
        "utterance_id": pc.coalesce(columns["utterance_id"], ids),
        "speaker": columns["speaker"],
        "text": columns["text"],
    }


def _vector_counts(rows: Rows, widths: Mapping[Modality, int]) -> str:
    """Return the numbers of missing and of all-zero vectors as text."""
    columns = {m: rows.columns[schema.vector_column(m)] for m in widths}
    missing = {m: column.null_count for m, column in columns.items()}
    zero = {m: _zeros(column, widths[m]) for m, column in columns.items()}
    return f"missing vectors: {_listed(missing)}; zero vectors: {_listed(zero)}"


def _zeros(column: Column, width: int) -> int:
    total = 0
    for part in spool.pieces(pa.table({"vectors": column})):
        values, present = schema.unpack_vectors(pa.chunked_array([packed(part["vectors"], width)]))
        total += int(np.count_nonzero(present & ~values.any(axis=1)))
    return total


def _listed(counts: Mapping[Modality, int]) -> str:
    return ", ".join(f"{modality} {number}" for modality, number in counts.items() if number) or "none"


def plain_name(name: str) -> str:
    """Return a name of a-z, 0-9, `.`, `_` and `-`; a digest distinguishes names that lose more than blanks and case.

    Raises:
        DataError: It is empty or blank.
    """
    if not name.strip():
        raise DataError("A dataset's name must not be empty. Give one with `--dataset`, or omit the option.")
    plain = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._")
    if plain == re.sub(r"\s+", "-", name.strip().lower()):
        return plain
    return f"{plain or 'table'}-{storage.digest(name.encode())[:8]}"
