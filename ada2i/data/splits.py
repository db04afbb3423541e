"""Names of splits, and the fixed rule that cuts a dev split where a corpus publishes none."""

import hashlib
from collections.abc import Iterable, Mapping

from ada2i.errors import DataError

# By lower-case name as corpora write it.
ALIASES: Mapping[str, str] = {
    "train": "train",
    "dev": "dev",
    "val": "dev",
    "valid": "dev",
    "validation": "dev",
    "test": "test",
}

DEV_RULE = "dev = the ceil(10 %) of train dialogues with the smallest SHA-256 of the UTF-8 dialogue id"


def normalise_split(name: str) -> str | None:
    """Return train, dev or test for a corpus's name of a split, or None where it is no name of one."""
    return ALIASES.get(name.strip().lower())


def cut_dev(dialogue_ids: Iterable[str], *, uri: str = "The table") -> set[str]:
    """Choose the dev dialogues among those of train, by ``DEV_RULE``: never by chance, order or content.

    Args:
        dialogue_ids: Dialogues of train; repeats count once.
        uri: Where they come from, for the message.

    Raises:
        DataError: There are fewer than two, so that train or dev would be empty.
    """
    ids = set(dialogue_ids)
    if len(ids) < 2:
        raise DataError(
            f"{uri} has no dev split, so `train` must hold at least 2 dialogues to cut one from, but holds {len(ids)}. "
            "Add dialogues to `train`, or rows with `split` dev.",
            uri=uri,
            field="split",
        )
    ranked = sorted(ids, key=lambda name: (hashlib.sha256(name.encode()).digest(), name))
    return set(ranked[: -(-len(ids) // 10)])
