"""Which dialogues form which global batch, and which rank takes which of them.

Both are pure functions: the order depends on (seed, epoch) alone, never on the number of workers, so any run can be
resumed anywhere, on any number of workers. The mixing function is spelled out rather than taken from a library, whose
streams may change from version to version.

Shape letters in this file:
    D dialogues of the split
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def epoch_batches(dialogues: int, *, batch_dialogues: int, seed: int, epoch: int) -> list[list[int]]:
    """Return the dialogues of each global batch of a training epoch, as indices into the split.

    Args:
        dialogues: ``D``.
        batch_dialogues: Dialogues of a global batch; the last one may have fewer.
        seed: The run's seed.
        epoch: Counted from 1.
    """
    key = _mix(_mix(np.array([seed], dtype=np.uint64)) ^ np.uint64(epoch))
    keys = _mix(np.arange(dialogues, dtype=np.uint64) ^ key)
    return cut(np.argsort(keys, kind="stable").tolist(), batch_dialogues)


def cut(dialogues: Sequence[int], batch_dialogues: int) -> list[list[int]]:
    """Cut a sequence of dialogues into consecutive global batches; evaluation uses the split's own order."""
    return [list(dialogues[i : i + batch_dialogues]) for i in range(0, len(dialogues), batch_dialogues)]


def share(batch: Sequence[int], lengths: npt.NDArray[np.int64], ranks: int) -> list[list[int]]:
    """Split a global batch among ranks, evenly by utterances.

    The longest dialogue goes first, each to the rank with the least so far.

    Args:
        batch: Dialogue indices.
        lengths: ``(D,)`` utterances of every dialogue of the split.
        ranks: Number of ranks.

    Returns:
        For each rank its dialogues, in the order of the batch; empty where there are fewer dialogues than ranks.
    """
    loads = [0] * ranks
    owner: dict[int, int] = {}
    for dialogue in sorted(batch, key=lambda d: -int(lengths[d])):
        rank = loads.index(min(loads))
        loads[rank] += int(lengths[dialogue])
        owner[dialogue] = rank
    return [[d for d in batch if owner[d] == rank] for rank in range(ranks)]


def _mix(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele, Lea, Flood 2014): neighbouring keys in, unrelated keys out."""
    keys = keys + np.uint64(0x9E3779B97F4A7C15)
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))
