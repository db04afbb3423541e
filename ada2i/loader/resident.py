"""A split whose values lie in a device's memory, so that the host sends only the row numbers of a batch.

Shape letters in this file:
    D dialogues of the split     R its utterances     N utterances of a batch     W width of a modality's vectors
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ada2i.loader.chunks import MappedShards
from ada2i.loader.split_data import Ints, SplitData, Values


@dataclass(frozen=True)
class Resident(SplitData):
    """A split on a device. Its batches are those of the split that it was made from, bit by bit.

    Attributes:
        place: The device.
        values: All rows in the split's order: ``(R, W)`` features, ``(R,)`` others.
    """

    place: torch.device = field(default=torch.device("cpu"))
    values: Values = field(default_factory=Values)

    @property
    def device(self) -> torch.device:
        """Where the tensors of its batches are."""
        return self.place

    @cached_property
    def _most_speakers(self) -> Ints:
        """``(D,)`` highest speaker of each dialogue."""
        return np.maximum.reduceat(self._column(lambda chunk: chunk.speakers), self.index.first_rows)

    def _values(self, dialogues: Sequence[int]) -> tuple[Values, int]:
        chosen = list(dialogues)
        lengths = self.lengths[chosen]
        inside = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        rows = torch.from_numpy(np.repeat(self.index.first_rows[chosen], lengths) + inside)
        if self.place.type == "cuda":
            rows = rows.pin_memory().to(self.place, non_blocking=True)
        return self.values.map(lambda column: column.index_select(0, rows)), int(self._most_speakers[chosen].max()) + 1


def on_device(split: SplitData, device: torch.device, *, limit: float) -> SplitData:
    """Return a split on a device if its values fit into ``limit`` bytes and it does not stream, else itself."""
    if not isinstance(split.chunks, MappedShards) or _bytes(split) > limit:
        return split
    shards = split.chunks.shards
    targets = [chunk.targets for chunk in shards if chunk.targets is not None] if split.targets else []
    values = Values(
        features={m: _column([chunk.features[m] for chunk in shards], device) for m in split.modalities},
        present={m: _column([chunk.present[m] for chunk in shards], device) for m in split.modalities},
        labels=_column([chunk.labels for chunk in shards], device),
        speakers=_column([chunk.speakers for chunk in shards], device),
        targets=_column(targets, device) if split.targets else None,
    )
    kept = {each.name: getattr(split, each.name) for each in fields(SplitData)}
    return Resident(**kept, place=device, values=values)


def _bytes(split: SplitData) -> int:
    first = split.chunks[0]
    width = sum(int(first.features[m].shape[1]) for m in split.modalities)
    return int(split.lengths.sum()) * (4 * width + len(split.modalities) + 8 + 8 + 4 * split.targets)


def _column(parts: Sequence[npt.NDArray[Any]], device: torch.device) -> Tensor:
    """Return arrays, one after another, on a device; only one is copied in the host's memory at a time."""
    rows = sum(len(part) for part in parts)
    column = torch.empty((rows, *parts[0].shape[1:]), dtype=torch.from_numpy(parts[0][:0].copy()).dtype, device=device)
    first = 0
    for part in parts:
        column[first : first + len(part)] = torch.from_numpy(part.copy())
        first += len(part)
    return column
