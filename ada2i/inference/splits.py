"""Predictions of a model: no labels needed, no state changed."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ada2i.batch import DialogueBatch
from ada2i.loader.split_data import SplitData
from ada2i.model.ada2i import Ada2I


def predict(model: Ada2I, batch: DialogueBatch) -> Tensor:
    """Return the logits of a batch, ``(N, C)``, with dropout off."""
    model.eval()
    with torch.inference_mode():
        logits: Tensor = model(batch).logits
    return logits


def predict_split(
    model: Ada2I, split: SplitData, *, batch_dialogues: int, device: torch.device
) -> Iterator[tuple[list[int], DialogueBatch, Tensor]]:
    """Yield dialogues, batch and logits ``(N, C)`` for a whole split, in its own order."""
    for dialogues in split.in_order(batch_dialogues).batches():
        batch = split.batch(dialogues, dialogues).to(device)
        yield dialogues, batch, predict(model, batch)
