"""Names of splits, and the fixed rules that cut a dev split and a gate split if a corpus has none.

The gate split decides about promotion: no model is trained or selected on it, and it moves on as a corpus grows.
"""

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ada2i.errors import DataError

_PART = 100_000  # ids that are hashed at once

# By lower-case name, as corpora write it.
ALIASES: Mapping[str, str] = {
    "train": "train",
    "dev": "dev",
    "val": "dev",
    "valid": "dev",
    "validation": "dev",
    "test": "test",
    "gate": "gate",
}

DEV_RULE = "dev = the ceil(10 %) of train dialogues with the smallest SHA-256 of the UTF-8 dialogue id"
GATE_SHARE = 0.1
SPLIT_RULES: Mapping[str, str] = {  # by what splits are made; "": by groups
    "dialogue": "train/dev/test = {shares} % of the {what} ({counts}), in the order of the SHA-256 of dataset and id",
    "time": "train/dev/test = {shares} % of the {what} ({counts}), from the oldest to the newest by `recorded_at`",
    "": "train/dev/test = {shares} % of the {what} ({counts}), in the order of the SHA-256 of dataset and first id",
}
GATE_RULE = "gate = the ceil({share:.12g} x number) newest of train's dialogues that have `recorded_at`"


def normalise_split(name: str) -> str | None:
    """Return train, dev, test or gate for a corpus's name of a split, or None if the name is unknown."""
    return ALIASES.get(name.strip().lower())


def cut_dev(dialogues: Any, *, uri: str) -> Any:
    """Choose the dev dialogues among those of train, by ``DEV_RULE``: never by chance, order or content.

    Args:
        dialogues: Ids of train's dialogues, ``(D,)`` Arrow strings; duplicates count once.
        uri: Their location, for the message.

    Returns:
        Ids of the dev dialogues, ``(ceil(D / 10),)`` Arrow strings.

    Raises:
        DataError: There are fewer than two dialogues, so train or dev would be empty.
    """
    ids = pc.unique(dialogues)
    if len(ids) < 2:
        raise DataError(
            f"{uri} has no dev split, so `train` must hold at least 2 dialogues to cut one from, but holds {len(ids)}. "
            "Add dialogues to `train`, or rows with `split` dev.",
            uri=uri,
            field="split",
        )
    return ids.take(pa.array(_digest_order(ids)[: -(-len(ids) // 10)]))


def _digest_order(ids: Any) -> NDArray[np.int64]:
    """Return the places of ids ``(D,)`` in the order of their SHA-256."""
    digests = bytearray()
    for start in range(0, len(ids), _PART):  # few of them as Python texts at a time
        digests += b"".join(hashlib.sha256(name.encode()).digest() for name in ids.slice(start, _PART).to_pylist())
    words = np.frombuffer(digests, ">u8").reshape(-1, 4)
    return np.lexsort(words.T[::-1])


def cut_gate(recorded: pa.Table, share: float) -> Any:
    """Choose the gate's dialogues among those of train, by ``GATE_RULE``: the newest, and of equal times by id.

    Args:
        recorded: Columns ``dialogue_id`` and ``time`` of train's dialogues whose time of recording is known.
        share: Share of these that becomes the gate.

    Returns:
        Ids of the gate's dialogues, Arrow strings.
    """
    newest: Any = pc.sort_indices(recorded, sort_keys=[("time", "descending"), ("dialogue_id", "descending")])
    number = math.ceil(round(share * len(recorded), 9))  # rounded, since 0.1 * 30 is slightly more than 3
    return recorded["dialogue_id"].take(newest[:number])


def cut_groups(number: int, shares: tuple[float, float, float], *, what: str, uri: str) -> list[str]:
    """Return the split of each of ordered groups: first train, then dev, then test.

    Dev and test get their rounded shares, at least one group if they have a share; train gets the rest.

    Args:
        number: Number of the groups.
        shares: Of train, dev and test, in percent.
        what: The groups in words, for the message.
        uri: Their location, for the message.

    Raises:
        DataError: There are too few groups, so a split would be empty.
    """
    dev, test = (max(1, round(number * share / 100)) if share else 0 for share in shares[1:])
    if (train := number - dev - test) < 1:
        raise DataError(
            f"{uri} must hold enough {what} that train gets one, but holds {number}, of which dev gets {dev} and test "
            f"{test}. Add dialogues, give train a larger share, or split by smaller groups.",
            uri=uri,
            field="split",
        )
    return ["train"] * train + ["dev"] * dev + ["test"] * test
