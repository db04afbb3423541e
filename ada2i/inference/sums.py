"""Sums over utterances that describe a model's inputs and answers, without texts and ids.

They are kept of several dialogues together, so no utterance's vector can be read from them.

The vectors of a modality are standardised as the model does it; their columns are divided into a few groups of
neighbours, and each utterance has the mean of each group. Sums of two windows add up.

Shape letters in this file:
    N utterances     D dialogues     K sums     G groups of a modality     E bins     C classes
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ada2i.modalities import Modality

if TYPE_CHECKING:
    from ada2i.inference.predict import Dialogues, Inference, Ints
    from ada2i.model.ada2i import Ada2I

Floats = npt.NDArray[np.float64]

_GROUPS = 8
_STEPS = 0.01 * 2.0 ** np.arange(13)  # from near zero to far outliers, in standard deviations if the model standardises
EDGES = np.concatenate([-_STEPS[::-1], _STEPS])
BINS = len(EDGES) + 1  # E
CONFIDENCE_BINS = 10


@dataclass(frozen=True)
class Columns:
    """What each sum counts.

    Attributes:
        groups: Groups of columns of each modality that the model reads.
        classes: ``C``.
        numbers: Whether the model predicts numbers: regression.
    """

    groups: Mapping[Modality, int]
    classes: int
    numbers: bool = False

    @classmethod
    def of(cls, widths: Mapping[Modality, int], classes: int, *, numbers: bool) -> "Columns":
        """Return the sums for vectors of these widths."""
        return cls({modality: min(_GROUPS, width) for modality, width in widths.items()}, classes, numbers)

    @cached_property
    def places(self) -> dict[str, slice]:
        """The place of each kind of sums in ``K``.

        ``utterances``; for each modality ``present.M``, and of the utterances that have it ``total.M`` and
        ``squares.M``, ``(G,)``, and ``bins.M``, ``(G * E,)`` counts; ``confidence``, the sum of the largest
        probabilities, and ``confidence_bins``; ``predicted``, ``(C,)`` utterances by predicted class; of regression
        also ``value``, the sum of the predicted numbers.
        """
        sizes = {"utterances": 1}
        for modality, groups in self.groups.items():
            sizes |= {f"present.{modality}": 1, f"total.{modality}": groups, f"squares.{modality}": groups}
            sizes |= {f"bins.{modality}": groups * BINS}
        sizes |= {"value": 1} if self.numbers else {}
        sizes |= {"confidence": 1, "confidence_bins": CONFIDENCE_BINS, "predicted": self.classes}
        ends = np.cumsum(list(sizes.values())).tolist()
        return {name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)}

    @property
    def size(self) -> int:
        """``K``."""
        return int(self.places["predicted"].stop)


def dialogue_sums(model: "Ada2I", dialogues: "Dialogues", inference: "Inference") -> Floats:
    """Return the sums of each dialogue, ``(D, K)`` float64; see ``Columns``.

    Args:
        model: The model that predicted, on any device.
        dialogues: What it read.
        inference: What it answered.
    """
    widths = {m: dialogues.features[m].shape[1] for m in model.modalities}
    columns = Columns.of(widths, model.classes, numbers=inference.values is not None)
    number, lengths = len(dialogues.lengths), dialogues.lengths
    of_row = np.repeat(np.arange(number), lengths)  # (N,) the dialogue of each utterance
    sums = np.zeros((number, columns.size))

    def put(name: str, values: Floats) -> None:
        starts = np.cumsum(lengths) - lengths
        sums[:, columns.places[name]] = np.add.reduceat(values.reshape(len(of_row), -1), starts, axis=0)

    def count(name: str, bins: "Ints", size: int, weight: Floats) -> None:
        place, columns_of = columns.places[name], bins.shape[1]
        cells = (of_row[:, None] * columns_of + np.arange(columns_of)) * size + bins
        found = np.bincount(cells.ravel(), np.repeat(weight, columns_of), number * columns_of * size)
        sums[:, place] = found.reshape(number, -1)

    ones = np.ones(len(of_row))
    put("utterances", ones)
    for modality, groups in columns.groups.items():
        there = dialogues.present[modality].astype(np.float64)
        means = _group_means(model, modality, dialogues, groups) * there[:, None]  # (N, G)
        put(f"present.{modality}", there)
        put(f"total.{modality}", means)
        put(f"squares.{modality}", means**2)
        count(f"bins.{modality}", np.searchsorted(EDGES, means), BINS, there)
    if inference.values is not None:
        put("value", inference.values.astype(np.float64))
    confidence = inference.probabilities.max(axis=1).astype(np.float64)
    put("confidence", confidence)
    bins = np.minimum((confidence * CONFIDENCE_BINS).astype(np.int64), CONFIDENCE_BINS - 1)
    count("confidence_bins", bins[:, None], CONFIDENCE_BINS, ones)
    count("predicted", inference.labels[:, None], columns.classes, ones)
    return sums


def _group_means(model: "Ada2I", modality: Modality, dialogues: "Dialogues", groups: int) -> Floats:
    import torch  # here, since commands and flows that only compare sums need none

    device = next(model.parameters()).device
    rows = torch.from_numpy(dialogues.features[modality]).to(device)
    present = torch.from_numpy(dialogues.present[modality]).to(device)
    with torch.no_grad():
        parts = torch.tensor_split(model.standardise[modality](rows, present), groups, dim=1)
        means: Floats = torch.stack([part.mean(dim=1) for part in parts], dim=1).double().cpu().numpy()
    return means
