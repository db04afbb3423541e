"""Makes train, dev and test for a table without splits: by dialogue, by time, or by groups of dialogues."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ada2i.data import schema
from ada2i.data.splits import SPLIT_RULES, cut_groups
from ada2i.errors import ConfigError, DataError
from ada2i.importers.checks import check_keys
from ada2i.importers.rows import Rows

PATH_SPLIT = "split of the path"  # key of ``File.metadata``: the split that a file's path names

Shares = tuple[float, float, float]  # of train, dev and test, in percent
SHARES: Shares = (80, 10, 10)
GROUPS: Mapping[str, str] = {"dialogue": "dialogue_id", "time": "recorded_at"}  # by value of ``by``, its column


def checked_shares(given: str | Sequence[float]) -> Shares:
    """Return the percentages of train, dev and test, given as numbers or as a text such as ``80,10,10``.

    Raises:
        ConfigError: They are not three numbers that make 100 together, or train or test is 0.
    """
    try:
        shares = tuple(float(part) for part in (given.split(",") if isinstance(given, str) else given))
    except ValueError:
        shares = ()
    if len(shares) != 3 or not (shares[0] > 0 and shares[1] >= 0 and shares[2] > 0) or abs(sum(shares) - 100) > 1e-9:
        raise ConfigError(
            f"`--shares` must be the percentages of train, dev and test, together 100, but are {given!r}. Write for "
            "example `--shares 80,10,10`; with dev 0, a tenth of train becomes dev.",
            field="shares",
        )
    return shares[0], shares[1], shares[2]


def with_made_splits(rows: Rows, by: str, shares: Shares, dataset: str) -> Rows:
    """Return rows with splits.

    Args:
        rows: Rows without splits; ``by`` is a column of them, unless it is ``dialogue`` or ``time``.
        by: ``dialogue``, ``time``, or a column: dialogues that share one of its values stay together.
        shares: Of train, dev and test.
        dataset: Name of the set, part of the hash.

    Raises:
        DataError: The table has splits, a value is missing, or a split would be empty or lack a class.
    """
    _check_no_splits(rows)
    check_keys(rows, ["dialogue_id", "utterance_index"])
    groups = _by_time(rows) if by == "time" else by_hash(groups_of(rows, by), dataset)
    what = "dialogues" if by in ("dialogue", "time") else f"groups of dialogues by `{by}`"
    chosen = cut_groups(len(groups), shares, what=what, uri=rows.source)
    split_of = {dialogue: split for group, split in zip(groups, chosen, strict=True) for dialogue in group}
    dialogues = rows.columns["dialogue_id"].combine_chunks().dictionary_encode()
    names = pa.array([split_of[str(name)] for name in dialogues.dictionary.to_pylist()], pa.string())
    counts = "/".join(str(chosen.count(split)) for split in ("train", "dev", "test"))
    percent = "/".join(f"{share:g}" for share in shares)
    rule = SPLIT_RULES[by if by in SPLIT_RULES else ""].format(shares=percent, what=what, counts=counts)
    return replace(rows.with_column("split", names.take(dialogues.indices)), split_rule=rule)


def check_classes(rows: Rows) -> None:
    """Refuse a class that no row of train has, after splits were made.

    Raises:
        DataError: There is one.
    """
    label = rows.columns["label"]
    train = pc.equal(rows.columns["split"], pa.scalar("train"))
    known = pc.or_(pc.is_in(label, value_set=label.filter(train).combine_chunks()), label.is_null())
    rows.require(
        known.to_numpy(zero_copy_only=False),
        "label",
        must="hold only classes that train has after the split",
        found=lambda row: f"of {rows.columns['split'][row].as_py()} holds {label[row].as_py()!r}",
        remedy="Give train a larger share with `--shares`, split by other groups, or name all classes with `--labels`.",
    )


def _check_no_splits(rows: Rows) -> None:
    split = rows.columns["split"]
    named = {file.metadata[PATH_SPLIT] for file in rows.files if PATH_SPLIT in file.metadata}
    if split.null_count < len(split) or len(named) > 1:
        where = f"in the names of its files: {', '.join(sorted(named))}" if len(named) > 1 else "in the column `split`"
        raise DataError(
            f"{rows.source} must have no splits if `--split-by` makes them, but has them {where}. Omit `--split-by` to "
            "keep them, or import one file without that column.",
            uri=rows.source,
            field="split",
        )


def groups_of(rows: Rows, by: str) -> list[list[str]]:
    """Return the dialogues that must stay together: those that share a value, directly or through others."""
    if by in ("dialogue", "dialogue_id"):
        return [[str(name)] for name in rows.columns["dialogue_id"].unique().to_pylist()]
    check_keys(rows, [by])
    pairs = rows.columns.select(["dialogue_id", by]).group_by(["dialogue_id", by]).aggregate([])
    above: dict[tuple[str, str], tuple[str, str]] = {}

    def top(node: tuple[str, str]) -> tuple[str, str]:
        while (parent := above.setdefault(node, node)) != node:
            above[node] = above[parent]
            node = parent
        return node

    for dialogue, value in zip(*(pairs[name].to_pylist() for name in ("dialogue_id", by)), strict=True):
        above[top(("dialogue", dialogue))] = top(("value", value))
    found: dict[tuple[str, str], list[str]] = {}
    for node in list(above):
        if node[0] == "dialogue":
            found.setdefault(top(node), []).append(node[1])
    return list(found.values())


def by_hash(groups: Sequence[list[str]], dataset: str) -> list[list[str]]:
    """Return groups in the order of the SHA-256 of the dataset and their first dialogue."""

    def key(group: list[str]) -> tuple[bytes, str]:
        first = min(group)
        return hashlib.sha256(f"{dataset}\0{first}".encode()).digest(), first

    return sorted(groups, key=key)


def _by_time(rows: Rows) -> list[list[str]]:
    """Return dialogues from the oldest to the newest, by the time of their last utterance, and of equal times by id."""
    times = rows.columns.select(["dialogue_id", "recorded_at"])
    # As numbers, since Python's times end with the year 9999.
    times = schema.with_column(times, "recorded_at", times["recorded_at"].cast(pa.int64()))
    newest = times.group_by("dialogue_id").aggregate([("recorded_at", "max")])
    recorded: Mapping[str, int | None] = dict(
        zip(*(newest[name].to_pylist() for name in ("dialogue_id", "recorded_at_max")), strict=True)
    )
    unknown = pa.array([name for name, time in recorded.items() if time is None], pa.string())
    rows.require(
        ~np.asarray(pc.is_in(rows.columns["dialogue_id"], value_set=unknown)),
        "recorded_at",
        must="hold a time in at least one row of each dialogue",
        found=lambda _: "belongs to a dialogue without one",
        remedy="Add the time, or split by dialogue.",
    )
    return [[name] for name in sorted(recorded, key=lambda name: (recorded[name] or 0, name))]
