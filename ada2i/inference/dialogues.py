"""What a model says of some dialogues: a pure function of weights and dialogues, whatever is batched with what.

Shape letters in this file:
    N utterances of all dialogues, laid end to end     D dialogues     M modalities     C classes
    n utterances of a batch     W width of a modality's vectors
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ada2i.batch import DialogueBatch, Layout
from ada2i.modalities import Modality
from ada2i.model.ada2i import Ada2I

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Dialogues:
    """Dialogues to predict.

    Attributes:
        features: By modality that the model reads, ``(N, W)`` float32; zeros where it is missing.
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
            labels=torch.zeros(len(rows), dtype=torch.int64),  # which no model reads
            speakers=torch.from_numpy(self.speakers[rows]),
            layout=Layout(tuple(lengths.tolist()), padded),
            global_utterances=len(rows),
            global_dialogues=len(chosen),
        )


@dataclass(frozen=True)
class Inference:
    """What a model says of ``N`` utterances.

    Attributes:
        probabilities: ``(N, C)`` float32.
        contributions: ``(N, M)`` float32: each modality's weighted vote for the class that is predicted.
        votes: ``(N,)`` float32: the sum of these, plus the classifier's bias where it has one. It is the class's logit,
            unless an MLP stands behind the votes (preset `paper`), whose inputs they are then.
    """

    probabilities: Floats
    contributions: Floats
    votes: Floats


def infer(model: Ada2I, dialogues: Dialogues, *, batch: int, device: torch.device) -> Inference:
    """Predict dialogues in batches of about equal lengths; the result is in the dialogues' own order.

    Other batches change rounding only: probabilities by some 1e-6 in float32, since matrix products of other sizes are
    summed in another order.

    Args:
        model: In eval mode, on ``device``.
        dialogues: Which.
        batch: Slots of one forward pass's padded grid; see ``batches``.
        device: Where to compute.
    """
    rows, classes = int(dialogues.lengths.sum()), model.fusion.classifier.out_features
    said = Inference(
        probabilities=np.empty((rows, classes), np.float32),
        contributions=np.empty((rows, len(model.modalities)), np.float32),
        votes=np.empty(rows, np.float32),
    )
    # Weights that autocast rounds are kept until the outermost block ends, so this one, which rounds nothing, saves
    # rounding them for every batch.
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        for chosen in batches(dialogues.lengths, dialogues.padded, batch):
            at, inputs = dialogues.batch(chosen)
            prediction = model(inputs.to(device))
            probabilities = torch.softmax(prediction.logits, dim=-1)
            label = probabilities.argmax(dim=-1)
            said.probabilities[at] = probabilities.cpu().numpy()
            said.contributions[at] = _of_class(_weighted(model, prediction.votes), label).T.cpu().numpy()
            said.votes[at] = _of_class(prediction.fused[None], label)[0].cpu().numpy()
    return said


def batches(lengths: Ints, padded: Ints | None, batch: int) -> Iterator[Ints]:
    """Yield batches of dialogues, the longest first, as places; none has more than ``batch`` slots of padded grid.

    Args:
        lengths: ``(D,)`` utterances of each dialogue.
        padded: ``(D,)`` lengths to which the model must pad each; only equal ones share a batch. None: any will do.
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


def _weighted(model: Ada2I, votes: Tensor) -> Tensor:
    weights = model.fusion.weights
    return votes if weights is None else votes * weights[:, None, None]


def _of_class(votes: Tensor, label: Tensor) -> Tensor:
    """Take each utterance's class out of ``(M, n, C)``: ``(M, n)``."""
    return votes.gather(2, label.expand(len(votes), -1)[:, :, None])[:, :, 0]
