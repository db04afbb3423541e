"""Predictions of a model for batches, splits and dialogues; they need no labels and change no state.

Shape letters in this file:
    N utterances of all dialogues, concatenated     D dialogues     M modalities     C classes
    n utterances of a batch     W width of a modality's vectors
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from ada2i.batch import DialogueBatch, Layout
from ada2i.data.parquet import to_parquet
from ada2i.devices import memory_of
from ada2i.errors import DataError
from ada2i.loader.split_data import SplitData
from ada2i.modalities import Modality
from ada2i.model.ada2i import Ada2I, Prediction, chances_of
from ada2i.records import UNLABELLED

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def predict(
    model: Ada2I, batches: Iterable[DialogueBatch], device: torch.device
) -> Iterator[tuple[DialogueBatch, Prediction]]:
    """Yield each batch, on the device, with its prediction; dropout and gradients are off during the iteration.

    Other batch sizes change rounding only: probabilities by about 1e-6 in float32, since products of other sizes are
    summed in another order.
    """
    model.eval()
    # autocast keeps rounded weights until the outermost block ends. This outer block, which rounds nothing, avoids
    # rounding the weights for every batch.
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        for batch in batches:
            there = batch.to(device)
            yield there, model(there)


def predict_split(model: Ada2I, split: SplitData, batch_dialogues: int) -> tuple[Ints, Floats]:
    """Return true classes ``(N,)`` and probabilities ``(N, C)`` of a whole split, in its own order, from the CPU.

    Scores and the gate use these probabilities as trained, without a version's temperature.
    """
    labels, logits = predict_logits(model, split, batch_dialogues)
    return labels, chances_of(logits, model.signs).numpy()


def predict_logits(model: Ada2I, split: SplitData, batch_dialogues: int) -> tuple[Ints, Tensor]:
    """Return true classes ``(N,)`` and logits ``(N, C)`` of a whole split, in its own order, from the CPU."""
    chosen = split.in_order(batch_dialogues).batches()
    predicted = predict(model, (split.batch(dialogues, dialogues) for dialogues in chosen), torch.device("cpu"))
    pairs = [(batch.labels, found.logits) for batch, found in predicted]
    return torch.cat([labels for labels, _ in pairs]).numpy(), torch.cat([logits for _, logits in pairs])


def predictions_file(split: SplitData, labels: Ints, probabilities: Floats, values: Floats | None = None) -> bytes:
    """Return a ``predictions.parquet``: a row per labelled utterance of a split, in its order.

    With the predicted numbers of regression, ``values``, they are a column ``value``.
    """
    ids = np.repeat(np.array(split.dialogue_ids), split.lengths)
    index = np.concatenate([np.arange(length, dtype=np.int32) for length in split.lengths])
    table = pa.table(
        {
            "dialogue_id": ids,
            "utterance_index": index,
            "label": labels,
            "prediction": probabilities.argmax(axis=1),
            "probabilities": pa.FixedSizeListArray.from_arrays(
                pa.array(probabilities.reshape(-1)), probabilities.shape[1]
            ),
        }
    )
    if values is not None:
        table = table.append_column("value", pa.array(values))
    return to_parquet(table.filter(labels != UNLABELLED))


@dataclass(frozen=True)
class Dialogues:
    """Dialogues to predict.

    Attributes:
        features: By modality that the model reads, ``(N, W)`` float32; zeros if it is missing.
        present: By modality, ``(N,)`` bool.
        speakers: ``(N,)`` int64, numbered from 0 by first appearance in the dialogue.
        lengths: ``(D,)`` int64 utterances of each dialogue.
        padded: ``(D,)`` int64 lengths to which a model that attends to padding pads each dialogue; None for others.
    """

    features: Mapping[Modality, Floats]
    present: Mapping[Modality, npt.NDArray[np.bool_]]
    speakers: Ints
    lengths: Ints
    padded: Ints | None

    def batch(self, chosen: Ints) -> tuple[Ints, DialogueBatch]:
        """Return the rows ``(n,)`` of some dialogues, and the batch they form."""
        lengths = self.lengths[chosen]
        starts = (np.cumsum(self.lengths) - self.lengths)[chosen]
        inside = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        rows = np.repeat(starts, lengths) + inside
        padded = int((self.lengths if self.padded is None else self.padded)[chosen].max())
        return rows, DialogueBatch(
            features={m: torch.from_numpy(x[rows]) for m, x in self.features.items()},
            present={m: torch.from_numpy(x[rows]) for m, x in self.present.items()},
            labels=torch.zeros(len(rows), dtype=torch.int64),  # models do not read labels
            speakers=torch.from_numpy(self.speakers[rows]),
            layout=Layout(tuple(lengths.tolist()), padded, speakers=int(self.speakers[rows].max()) + 1),
            global_utterances=len(rows),
            global_dialogues=len(chosen),
        )


@dataclass(frozen=True)
class Inference:
    """Predictions of ``N`` utterances.

    Attributes:
        labels: ``(N,)`` int64, the predicted classes, which the temperature does not change.
        probabilities: ``(N, C)`` float32, with the model's temperature; of regression, 1 for the class of the number's
            sign.
        contributions: ``(N, M)`` float32: each modality's weighted vote for the predicted class.
        votes: ``(N,)`` float32: their sum, plus the classifier's bias if it has one. It is the class's logit unless an
            MLP predicts from the votes (preset `paper`).
        values: ``(N,)`` float32, the predicted numbers of regression; None: classification.
    """

    labels: Ints
    probabilities: Floats
    contributions: Floats
    votes: Floats
    values: Floats | None = None


_SLOT_BYTES = 1 << 20  # of a GPU's memory, for each slot of a padded grid
_MOST_SLOTS = 1 << 16


def slots_on(device: torch.device, slots: int, *, share: float = 1.0) -> int:
    """Return the slots of a forward pass on a device.

    Args:
        device: The device.
        slots: Those on a CPU.
        share: The share of the device that this process may use.
    """
    return max(slots, min(_MOST_SLOTS, int(share * memory_of(device)) // _SLOT_BYTES))


def infer(model: Ada2I, dialogues: Dialogues, *, batch: int, device: torch.device) -> Inference:
    """Predict dialogues in batches of similar lengths; the result is in the dialogues' own order.

    Args:
        model: The model, on ``device``.
        dialogues: What to predict.
        batch: Slots of one forward pass's padded grid; see ``batches``.
        device: Where to compute.
    """
    rows, classes = int(dialogues.lengths.sum()), model.classes
    inference = Inference(
        labels=np.empty(rows, np.int64),
        probabilities=np.empty((rows, classes), np.float32),
        contributions=np.empty((rows, len(model.modalities)), np.float32),
        votes=np.empty(rows, np.float32),
        values=np.empty(rows, np.float32) if model.signs else None,
    )
    places: list[Ints] = []  # of each batch's rows; `predict` draws one batch at a time

    def made() -> Iterator[DialogueBatch]:
        for chosen in batches(dialogues.lengths, dialogues.padded, batch):
            at, inputs = dialogues.batch(chosen)
            places.append(at)
            yield inputs

    for _, prediction in predict(model, made(), device):
        at, found = places.pop(), answers_of(model, prediction)
        inference.labels[at], inference.probabilities[at] = found.labels, found.probabilities
        inference.contributions[at], inference.votes[at] = found.contributions, found.votes
        if inference.values is not None:
            inference.values[at] = found.values
    return inference


def answers_of(model: Ada2I, prediction: Prediction) -> Inference:
    """Return what a prediction says of each utterance, from the CPU.

    Raises:
        DataError: It is not finite, since a vector is too large.
    """
    if not prediction.logits.isfinite().all():
        raise DataError(
            "Vectors must be small enough for the model to compute with, but a prediction is not finite. Correct the "
            "vectors: the encoder of the model's features gives none that large."
        )
    label = chances_of(prediction.logits, model.signs).argmax(dim=-1)
    output = torch.zeros_like(label) if model.signs else label  # the only output of regression
    weighted = model.fusion.weigh_votes(prediction.votes)
    return Inference(
        labels=label.cpu().numpy(),
        probabilities=model.chances(prediction.logits).cpu().numpy(),
        contributions=_of_class(weighted, output).T.cpu().numpy(),
        votes=_of_class(prediction.fused[None], output)[0].cpu().numpy(),
        values=prediction.logits[:, 0].cpu().numpy() if model.signs else None,
    )


def batches(lengths: Ints, padded: Ints | None, batch: int) -> Iterator[Ints]:
    """Yield batches of dialogues, the longest first, as indices; each has at most ``batch`` slots of padded grid.

    Args:
        lengths: ``(D,)`` utterances of each dialogue.
        padded: ``(D,)`` lengths to which the model must pad each; only equal ones share a batch. None: any may share.
        batch: Slots; a longer dialogue is a batch of its own.
    """
    slots = lengths if padded is None else padded
    order = np.argsort(-slots, kind="stable")
    edges = [] if padded is None else (np.flatnonzero(np.diff(slots[order])) + 1).tolist()
    for group in np.split(order, edges):
        first = 0
        while first < len(group):
            most = max(1, batch // int(slots[group[first]]))
            yield group[first : first + most]
            first += most


def _of_class(votes: Tensor, label: Tensor) -> Tensor:
    """Return the entries of each utterance's class in ``(M, n, C)``: ``(M, n)``."""
    return votes.gather(2, label.expand(len(votes), -1)[:, :, None])[:, :, 0]
