"""The batch that travels through loader, model and losses.

Shape letters in this file:
    N utterances of all dialogues, laid end to end     B dialogues     T longest dialogue     S = B * T padded slots
    D width of a modality's features
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ada2i import fast
from ada2i.fast.buckets import groups_of, rows_to_add
from ada2i.modalities import Modality
from ada2i.records import UNLABELLED


@dataclass(frozen=True)
class Layout:
    """The assignment of rows to dialogues; padding is never stored, only described.

    Attributes:
        lengths: Utterances of each dialogue, in row order; each at least 1.
        padded_length: ``T``, the longest dialogue of the *global* batch: the same on all ranks.
        device: Of its tensors.
        speakers: Most speakers of a dialogue, known without reading a tensor from the device; None: not known.
    """

    lengths: tuple[int, ...]
    padded_length: int
    device: torch.device = field(default=torch.device("cpu"))
    speakers: int | None = None

    # Index tensors are computed on the host, where a few numbers cost less than a GPU's launch.

    @cached_property
    def lengths_tensor(self) -> Tensor:
        """``(B,)`` int64 lengths."""
        return self._on_device(np.array(self.lengths, dtype=np.int64))

    @cached_property
    def dialogue(self) -> Tensor:
        """``(N,)`` int64: the dialogue of each row."""
        return self._on_device(self._dialogues)

    @cached_property
    def slots(self) -> Tensor:
        """``(N,)`` int64: the slot of each row in the padded ``(B, T)`` grid, flattened."""
        starts = np.cumsum(self.lengths) - self.lengths
        position = np.arange(len(self._dialogues)) - starts[self._dialogues]
        return self._on_device(self._dialogues * self.padded_length + position)

    @cached_property
    def occupied(self) -> Tensor:
        """``(B, T)`` bool: true for slots of the padded grid that hold an utterance."""
        return self._on_device(np.arange(self.padded_length) < np.array(self.lengths)[:, None])

    @cached_property
    def one_hot(self) -> Tensor:
        """``(N, B)`` float32: row to dialogue. Products with it are deterministic on a GPU."""
        return self._on_device(np.eye(len(self.lengths), dtype=np.float32)[self._dialogues])

    @cached_property
    def _dialogues(self) -> "np.ndarray[Any, np.dtype[np.int64]]":
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    def _on_device(self, array: "np.ndarray[Any, Any]") -> Tensor:
        return torch.from_numpy(array).to(self.device, non_blocking=True)

    @cached_property
    def full(self) -> "Layout":
        """The layout in which every dialogue has ``T`` utterances: the padded grid itself."""
        return Layout((self.padded_length,) * len(self.lengths), self.padded_length, self.device)

    @cached_property
    def rounded(self) -> "Layout":
        """The layout with one extra dialogue of empty rows, so that only few different row counts occur."""
        extra = rows_to_add(sum(self.lengths))
        return Layout((*self.lengths, extra), max(self.padded_length, extra), self.device) if extra else replace(self)

    @property
    def is_full(self) -> bool:
        """Whether no slot of the padded grid is empty."""
        return all(length == self.padded_length for length in self.lengths)

    @cached_property
    def groups(self) -> list[list[int]]:
        """Dialogues of each part; on a GPU there is one part, as launches cost more than padding."""
        return groups_of(self.lengths) if self._grouped else [list(range(len(self.lengths)))]

    @property
    def _grouped(self) -> bool:
        return self.device.type == "cpu" and fast.enabled()

    @cached_property
    def parts(self) -> tuple["Part", ...]:
        """Groups of dialogues, each with a padded grid of its own."""
        if self.is_full:
            return (Part(replace(self), None),)  # a copy: a reference to itself would need the garbage collector
        starts = [0, *accumulate(self.lengths)]
        parts = []
        for group in self.groups:
            lengths = tuple(self.lengths[d] for d in group)
            # On a GPU the only grid has the length of the padded batch, which takes few different values.
            place = np.arange(max(lengths) if self._grouped else self.padded_length)
            first = np.array([starts[d] for d in group])[:, None]
            rows = first + np.where(place < np.array(lengths)[:, None], place, 0)  # (B, T)
            parts.append(Part(Layout(lengths, len(place), self.device), self._on_device(rows)))
        return tuple(parts)

    @property
    def grid_shapes(self) -> list[tuple[int, int]]:
        """``(B, T)`` of each part's grid."""
        return [(len(part.layout.lengths), part.layout.padded_length) for part in self.parts]

    def to_grids(self, rows: Tensor) -> Tensor:
        """Place ``(N, D)`` rows into the grids of all parts, laid end to end, ``(S, D)``; see ``Part.rows``.

        Whatever reads the grids must give empty slots a gradient of zero.
        """
        if self.is_full:
            return rows
        grids: Tensor = _Permuted.apply(rows, self.rows_of_parts, self.slots_of_parts)  # type: ignore[no-untyped-call]
        return grids

    def from_grids(self, slots: Tensor) -> Tensor:
        """Take the ``(N, ...)`` rows out of the parts' grids, ``(S, ...)``: the inverse of ``to_grids``."""
        if self.is_full:
            return slots
        rows: Tensor = _Taken.apply(slots, self.slots_of_parts)  # type: ignore[no-untyped-call]
        return rows

    @cached_property
    def rows_of_parts(self) -> Tensor:
        """The row of each slot in the grids of the parts, laid end to end; see ``Part.rows``."""
        rows = [part.rows.flatten() for part in self.parts if part.rows is not None]
        return rows[0] if len(rows) == 1 else torch.cat(rows)  # the same memory: `training.graphs` refills it

    @cached_property
    def slots_of_parts(self) -> Tensor:
        """``(N,)`` int64: the slot of each row in the grids of the parts, laid end to end."""
        starts, end = [0] * len(self.lengths), 0
        for group, part in zip(self.groups, self.parts, strict=True):
            for d in group:
                starts[d], end = end, end + part.layout.padded_length
        slots = [np.arange(start, start + length) for start, length in zip(starts, self.lengths, strict=True)]
        return self._on_device(np.concatenate(slots))

    def pad(self, rows: Tensor, dim: int = 0) -> Tensor:
        """Place ``(..., N, ...)`` rows into the grid, ``(..., S, ...)``, with zeros in empty slots."""
        if self.is_full:
            return rows
        shape = list(rows.shape)
        shape[dim] = len(self.lengths) * self.padded_length
        return rows.new_zeros(shape).index_copy(dim, self.slots, rows)

    def unpad(self, grid: Tensor, dim: int = 0) -> Tensor:
        """Take the ``(..., N, ...)`` rows out of the ``(..., S, ...)`` grid: the inverse of ``pad``."""
        return grid if self.is_full else grid.index_select(dim, self.slots)


class _Permuted(torch.autograd.Function):
    """``index_select`` whose gradient is one, too: deterministic on a GPU, and without a tensor of zeros."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return rows.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        return gradient.index_select(0, inverse), None, None


class _Taken(torch.autograd.Function):
    """``index_select`` of different rows: its gradient is copied to them, which is deterministic on a GPU."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.shape = rows.shape
        return rows.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return gradient.new_zeros(ctx.shape).index_copy_(0, index, gradient), None


@dataclass(frozen=True)
class Part:
    """Some dialogues of a layout.

    Attributes:
        layout: Of these dialogues alone.
        rows: ``(B, T)`` int64: the row in each slot of their padded grid; empty slots hold the first row of their
            dialogue, and readers must mask them. None: all rows, in their own order.
    """

    layout: Layout
    rows: Tensor | None

    def grid(self, rows: Tensor) -> Tensor:
        """Place ``(N, ...)`` rows of the whole layout into the part's grid, ``(B, T, ...)``."""
        shape = (len(self.layout.lengths), self.layout.padded_length)
        taken = rows if self.rows is None else rows.index_select(0, self.rows.flatten())
        return taken.view(*shape, *rows.shape[1:])


@dataclass(frozen=True)
class DialogueBatch:
    """One rank's share of a global batch of dialogues.

    Attributes:
        features: By modality, ``(N, D)`` float32; zeros if an utterance lacks the modality.
        present: By modality, ``(N,)`` bool.
        labels: ``(N,)`` int64 class indices, ``UNLABELLED`` for an utterance that is only context.
        speakers: ``(N,)`` int64 speakers, numbered from 0 by first appearance in the dialogue.
        layout: Which rows belong to which dialogue.
        global_utterances: Utterances of the global batch, over all ranks; in a padded batch a scalar on the device.
        global_dialogues: Dialogues of the global batch, over all ranks.
        counted: False for a rank without a dialogue of this global batch. It computes on a borrowed one, so that
            collective calls match, and its sums count as zero.
        labelled: Utterances of the global batch with a label, over all ranks; None: all.
        dialogues: Indices of these dialogues in their split; empty if they belong to no split.
        members: The same of all dialogues of the global batch.
        targets: ``(N,)`` float32 that regression predicts, NaN for an utterance without one. None: classification.
        targeted: Utterances of the global batch with a target, over all ranks.
        taught: ``(N, C)`` float32, the teachers' mean probabilities. None: there are no teachers.
        taught_encodings: ``(N, M, H)`` float32, the outputs of unimodal teachers' encoders. None: they are not learned.
        real: ``(N,)`` bool, false for the empty rows of a padded batch (``training.padding``). None: all are real.
    """

    features: Mapping[Modality, Tensor]
    present: Mapping[Modality, Tensor]
    labels: Tensor
    speakers: Tensor
    layout: Layout
    global_utterances: int | Tensor
    global_dialogues: int
    counted: bool = True
    labelled: int | Tensor | None = None
    dialogues: tuple[int, ...] = ()
    members: tuple[int, ...] = ()
    targets: Tensor | None = None
    targeted: int | Tensor | None = None
    taught: Tensor | None = None
    taught_encodings: Tensor | None = None
    real: Tensor | None = None

    @property
    def global_labelled(self) -> int | Tensor:
        """Divisor of sums over ``known`` utterances: their number over all ranks, at least 1."""
        number = self.labelled if self.targets is None else self.targeted
        number = self.global_utterances if number is None else number
        return number.clamp_min(1) if isinstance(number, Tensor) else max(1, number)

    @property
    def known(self) -> Tensor:
        """``(N,)`` bool: the utterances that a loss counts, which have a label, or in regression a target."""
        return self.labels != UNLABELLED if self.targets is None else self.targets.isfinite()

    def distances(self, values: Tensor) -> Tensor:
        """Return distances from the targets, ``(..., N)``, of values ``(..., N)``; 0 without a target."""
        if self.targets is None:
            raise ValueError("targets must be given to measure distances from them")
        return torch.where(self.known, (values - self.targets.nan_to_num(0.0)).abs(), 0.0)

    def own(self, term: Tensor) -> Tensor:
        """Return this rank's share of a sum over ranks: the term, or zero if the batch is not ``counted``."""
        return term if self.counted else term * 0.0

    def __post_init__(self) -> None:
        rows = sum(self.layout.lengths)
        if min(self.layout.lengths, default=0) < 1 or max(self.layout.lengths, default=0) > self.layout.padded_length:
            raise ValueError(
                f"lengths must lie in 1..{self.layout.padded_length} (padded_length), but are {self.layout.lengths}"
            )
        tensors = (*self.features.items(), *self.present.items())
        shapes: dict[str, tuple[int, ...]] = {name: tuple(x.shape[:1]) for name, x in tensors}
        shapes |= {"labels": tuple(self.labels.shape), "speakers": tuple(self.speakers.shape)}
        shapes |= {} if self.targets is None else {"targets": tuple(self.targets.shape)}
        shapes |= {} if self.taught is None else {"taught": tuple(self.taught.shape[:1])}
        if self.taught_encodings is not None:
            shapes["taught_encodings"] = tuple(self.taught_encodings.shape[:1])
        if wrong := {name: shape for name, shape in shapes.items() if shape != (rows,)}:
            raise ValueError(f"all tensors must have {rows} rows, the sum of lengths, but have {wrong}")

    def pinned(self) -> "DialogueBatch":
        """Return the batch in page-locked memory, from which a GPU copies while it computes."""
        return replace(
            self,
            features={m: x.pin_memory() for m, x in self.features.items()},
            present={m: x.pin_memory() for m, x in self.present.items()},
            labels=self.labels.pin_memory(),
            speakers=self.speakers.pin_memory(),
            targets=None if self.targets is None else self.targets.pin_memory(),
            taught=None if self.taught is None else self.taught.pin_memory(),
            taught_encodings=None if self.taught_encodings is None else self.taught_encodings.pin_memory(),
        )

    def to(self, device: torch.device) -> "DialogueBatch":
        """Return the batch on a device."""
        if self.labels.device == device:
            return self
        return replace(
            self,
            features={m: x.to(device, non_blocking=True) for m, x in self.features.items()},
            present={m: x.to(device, non_blocking=True) for m, x in self.present.items()},
            labels=self.labels.to(device, non_blocking=True),
            speakers=self.speakers.to(device, non_blocking=True),
            layout=replace(self.layout, device=device),
            targets=None if self.targets is None else self.targets.to(device, non_blocking=True),
            taught=None if self.taught is None else self.taught.to(device, non_blocking=True),
            taught_encodings=None
            if self.taught_encodings is None
            else self.taught_encodings.to(device, non_blocking=True),
        )
