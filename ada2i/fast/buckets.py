"""Batch sizes that a CPU computes fast: grids with little padding, and only few different row counts."""

from collections.abc import Sequence

from ada2i import fast

_GROUP_CELLS = 10000  # attention cells that take as long as the calls of one more group
_LEAST_STEP = 16  # rows


def groups_of(lengths: Sequence[int]) -> list[list[int]]:
    """Return the dialogues of each padded grid, as indices into ``lengths``: see ``similar``; plain: one grid for all.

    Args:
        lengths: Utterances of each dialogue.
    """
    return similar(lengths) if fast.enabled() else [list(range(len(lengths)))]


def similar(lengths: Sequence[int]) -> list[list[int]]:
    """Group dialogues by length with the lowest cost: padding each group to its longest, and a cost per group.

    Args:
        lengths: Utterances of each dialogue.

    Returns:
        Indices into ``lengths`` by group, shorter dialogues first.
    """
    order = sorted(range(len(lengths)), key=lambda d: lengths[d])
    ends = [i for i in range(1, len(order)) if lengths[order[i - 1]] != lengths[order[i]]] + [len(order)]
    best = {0: (0, 0)}  # by dialogues grouped so far: cells, and where the last group starts
    for end in ends:
        cells = lengths[order[end - 1]] ** 2
        best[end] = min((before + (end - start) * cells + _GROUP_CELLS, start) for start, (before, _) in best.items())
    groups, end = [], len(order)
    while end:
        groups.append(order[best[end][1] : end])
        end = best[end][1]
    return groups[::-1]


def rows_to_add(rows: int) -> int:
    """Return how many empty rows to add so that only few different row counts occur; plain: 0.

    On a CPU, bfloat16 products are compiled for each new shape, which takes longer than the product.
    """
    step = max(_LEAST_STEP, (1 << rows.bit_length()) // 16)  # a sixteenth to an eighth of the rows
    return -rows % step if fast.enabled() else 0
