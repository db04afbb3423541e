"""This rank's share of each global batch."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice, pairwise
from typing import TypeVar

import torch

from ada2i.batch import DialogueBatch
from ada2i.loader.order import share
from ada2i.loader.split_data import SplitData
from ada2i.training import distributed
from ada2i.training.task import Task

Item = TypeVar("Item")
Made = TypeVar("Made")


def node_of_ranks(local_rank: int) -> tuple[int, ...]:
    """Return the number of each rank's machine; all ranks must call this. Ranks of a machine follow one another.

    Args:
        local_rank: This rank's place among those of its machine.
    """
    places = [int(fact["place"]) for fact in distributed.gathered({"place": local_rank})]
    if any(place not in (0, before + 1) for before, place in pairwise(places)):
        return (0,) * len(places)  # in another order: each machine decodes all shards
    return tuple(places[: rank + 1].count(0) - 1 for rank in range(len(places)))


def own_share(split: SplitData, batch: Sequence[int]) -> DialogueBatch:
    """Return this rank's share of a global batch of a split."""
    own = split.shares(batch, distributed.world_size())[distributed.rank()]
    return split.batch(own, batch)


def own_batches(task: Task, batches: Iterator[list[int]]) -> Iterator[tuple[list[int], list[DialogueBatch]]]:
    """Yield each global batch of train with this rank's share on the device, in parts whose gradients are summed.

    For a GPU without the split in its memory, a thread assembles the next batch in page-locked memory; on a CPU, a
    thread would slow down the step.
    """
    if task.device.type != "cuda" or task.near_train.device.type == "cuda":
        yield from ((dialogues, _own_parts(task, dialogues)) for dialogues in batches)
        return
    pinned = ahead(batches, lambda dialogues: (dialogues, [part.pinned() for part in _own_parts(task, dialogues)]))
    for dialogues, parts in pinned:
        yield dialogues, [part.to(task.device) for part in parts]


def _own_parts(task: Task, batch: Sequence[int]) -> list[DialogueBatch]:
    """Return this rank's share of a global batch of train, in parts whose gradients are summed."""
    lengths = task.train.lengths
    own = task.train.shares(batch, distributed.world_size())[distributed.rank()]
    parts = [part for part in share(own, lengths, task.config.resources.accumulate) if part]
    return [_taught(task, task.near_train.batch(part, batch)) for part in parts or [own]]


def _taught(task: Task, batch: DialogueBatch) -> DialogueBatch:
    """Return a batch of train with the outputs of its teachers, if there are teachers."""
    if task.teacher_outputs is None:
        return batch
    rows = torch.cat([torch.arange(*task.train_edges[d : d + 2]) for d in batch.dialogues])
    probabilities, encodings = task.teacher_outputs
    device = batch.labels.device
    return replace(
        batch,
        taught=probabilities[rows].to(device),
        taught_encodings=None if encodings is None else encodings[rows].to(device),
    )


def ahead(items: Iterable[Item], make: Callable[[Item], Made]) -> Iterator[Made]:
    """Yield the result of ``make`` for each item, in order, while a thread makes the next one.

    An item is taken only after the one before it was made. Errors of ``items`` or ``make`` are raised in the
    item's turn; when the caller stops, the thread finishes its item and ends.
    """
    left = iter(items)
    with ThreadPoolExecutor(1, "ahead") as thread:
        making = [thread.submit(make, item) for item in islice(left, 1)]
        while making:
            made = making.pop().result()
            making = [thread.submit(make, item) for item in islice(left, 1)]
            yield made
