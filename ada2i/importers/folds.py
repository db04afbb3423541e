"""Feature sets of one corpus with other splits: k folds of dialogues, or one fold per group of dialogues."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ada2i.data import schema
from ada2i.errors import ConfigError, DataError
from ada2i.importers.checks import check_keys, renamed_splits
from ada2i.importers.import_rows import import_rows, plain_name
from ada2i.importers.labels import recorded_names
from ada2i.importers.rows import Rows
from ada2i.importers.source import read_rows
from ada2i.importers.splitting import by_hash, groups_of
from ada2i.importers.table import dataset_name, provenance
from ada2i.modalities import Modality

K_FOLD = (
    "dialogues of train, dev and test together, without gate, in the order of the SHA-256 of dataset and id; fold i of "
    "{number} tests every {number}th from the i-th on"
)
LEAVE_OUT = "each fold tests the dialogues of one value of `{column}`, or of values that share dialogues, without gate"


def fold_sets(
    source: str, root: str, *, folds: int = 0, leave_out: str = "", needs: Sequence[Modality] = ()
) -> list[str]:
    """Write one feature set per fold, with test as the fold, and dev cut from the rest; return their URIs.

    Args:
        source: A table, which needs no splits, or a feature set.
        root: The storage root.
        folds: Number of folds; 0 with ``leave_out``.
        leave_out: A column of the table; of a set, ``speaker``.
        needs: Modalities that the sets must hold.

    Raises:
        ConfigError: ``folds`` is 1 or negative.
        DataError: There are fewer dialogues or groups than folds, or a check of an import failed.
    """
    if not leave_out and folds < 2:
        raise ConfigError(
            f"`--folds` must be at least 2, but is {folds}. Write for example `--folds 5`.", field="folds"
        )
    by = leave_out or "dialogue"
    rows = _without_gate(read_rows(source, group=leave_out or "dialogue_id"))
    dataset = plain_name(dataset_name(rows))
    groups = by_hash(groups_of(rows, by), dataset)
    number = max(2, len(groups) if leave_out else folds)
    if len(groups) < number:
        what = f"groups of dialogues by `{by}`" if leave_out else "dialogues"
        raise DataError(
            f"{rows.source} must hold at least {number} {what} for as many folds, but holds {len(groups)}. Request "
            "fewer folds, or name another column.",
            uri=rows.source,
        )
    rule = LEAVE_OUT.format(column=by) if leave_out else K_FOLD.format(number=number)
    labels = _labels(rows)
    return [
        import_rows(
            replace(_with_test(rows, chosen), split_rule=f"fold {place + 1} of {number}: {rule}"),
            root,
            dataset=dataset,
            labels=labels,
            source=f"fold {place + 1} of {number} of {provenance(rows)}",
            needs=needs,
            counted=False,
            gate_share=0,
        )
        for place, chosen in enumerate(_fold_dialogues(groups, number))
    ]


def _fold_dialogues(groups: Sequence[list[str]], number: int) -> Iterator[list[str]]:
    for place in range(number):
        yield [dialogue for group in groups[place::number] for dialogue in group]


def _without_gate(rows: Rows) -> Rows:
    """Return the rows without gate; a dialogue's id gets its split if the splits repeat ids."""
    check_keys(rows, ["dialogue_id", "utterance_index"])
    if rows.columns["split"].null_count == rows.columns.num_rows:
        return rows
    check_keys(rows, ["split"])
    rows = renamed_splits(rows)
    columns = rows.columns
    pairs = columns.select(["dialogue_id", "split"]).group_by(["dialogue_id", "split"]).aggregate([])
    if len(pc.unique(pairs["dialogue_id"])) < pairs.num_rows:
        names = pc.binary_join_element_wise(columns["split"], columns["dialogue_id"], pa.scalar("/"))  # type: ignore[call-overload]
        columns = schema.with_column(columns, "dialogue_id", names)
    return replace(rows, columns=columns.filter(pc.not_equal(columns["split"], pa.scalar("gate"))))


def _labels(rows: Rows) -> tuple[str, ...]:
    """Return the classes of all rows: those of the set or files, else the names, or the numbers up to the largest."""
    if known := recorded_names(rows.files) or (rows.base.manifest.labels if rows.base else None):
        return known
    held: list[Any] = pc.unique(rows.columns["label"]).drop_null().to_pylist()
    if pa.types.is_string(rows.columns["label"].type):
        return tuple(sorted(held))
    return tuple(str(number) for number in range(1 + int(max(held, default=0))))


def _with_test(rows: Rows, dialogues: Sequence[str]) -> Rows:
    """Return the rows with some dialogues as test and the others as train."""
    tested = pc.is_in(rows.columns["dialogue_id"], value_set=pa.array(dialogues, pa.string()))
    return rows.with_column("split", pc.if_else(tested, pa.scalar("test"), pa.scalar("train")))
