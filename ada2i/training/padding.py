"""Batches padded to few shapes, for steps that are captured once per shape; padding changes no result.

Empty dialogues are appended: their rows have no label, no modality and are not ``real``, so they count in no loss, mean
or statistic, and no other dialogue reads them.

Shape letters in this file:
    N utterances     B dialogues     T longest dialogue
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ada2i.batch import DialogueBatch, Layout
from ada2i.records import UNLABELLED

_LENGTHS = 16  # lengths are rounded up to its multiples
_LEVELS = 8  # different numbers of rows for a length, about


@dataclass(frozen=True)
class Shape:
    """The sizes of a padded batch.

    Attributes:
        dialogues: ``B``, empty ones included.
        rows: ``N``, empty ones included.
        length: ``T``.
    """

    dialogues: int
    rows: int
    length: int


def padded_shape(lengths: Sequence[int], batch_dialogues: int) -> Shape:
    """Return the shape to which a batch of dialogues of these lengths is padded.

    Args:
        lengths: Utterances of each dialogue.
        batch_dialogues: Dialogues of a whole batch; the last one of an epoch may have fewer.
    """
    length = _up(max(lengths), _LENGTHS)
    step = -(-batch_dialogues // _LEVELS) * length
    spare = 2
    # The empty dialogues must be able to hold the most rows that rounding adds; the last one holds a single row.
    while (spare - 1) * length + 1 < spare + step - 1:
        spare += 1
    dialogues = batch_dialogues + spare
    return Shape(dialogues, _up(sum(lengths) + dialogues - len(lengths), step), length)


def pad_batch(batch: DialogueBatch, shape: Shape) -> DialogueBatch:
    """Return a batch padded to a shape from ``padded_shape``; its counts are scalars on its device.

    Args:
        batch: A whole global batch: there is one rank.
        shape: The shape.
    """
    lengths, device = batch.layout.lengths, batch.labels.device
    extra = shape.rows - sum(lengths)
    sizes = _fill(extra, shape.dialogues - len(lengths), shape.length)
    layout = Layout((*lengths, *sizes), shape.length, device, batch.layout.speakers)
    real = torch.ones_like(batch.labels, dtype=torch.bool) if batch.real is None else batch.real
    return replace(
        batch,
        features={m: F.pad(x, (0, 0, 0, extra)) for m, x in batch.features.items()},
        present={m: F.pad(x, (0, extra)) for m, x in batch.present.items()},
        labels=F.pad(batch.labels, (0, extra), value=UNLABELLED),
        speakers=F.pad(batch.speakers, (0, extra)),
        targets=None if batch.targets is None else F.pad(batch.targets, (0, extra), value=float("nan")),
        real=F.pad(real, (0, extra)),
        layout=layout,
        global_utterances=_scalar(batch.global_utterances, device),
        labelled=_scalar(batch.global_utterances if batch.labelled is None else batch.labelled, device),
        targeted=_scalar(batch.global_utterances if batch.targeted is None else batch.targeted, device),
    )


def _fill(rows: int, dialogues: int, length: int) -> list[int]:
    """Return the rows of each empty dialogue: at least one, at most ``length``, and one in the last."""
    sizes, left = [], rows - dialogues  # one row each, and the rest to the first ones
    for _ in range(dialogues - 1):
        more = min(left, length - 1)
        sizes.append(1 + more)
        left -= more
    return [*sizes, 1]


def _scalar(number: int | Tensor, device: torch.device) -> Tensor:
    return number if isinstance(number, Tensor) else torch.tensor(number, dtype=torch.int64).to(device)


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
