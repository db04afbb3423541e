"""Scores of a model when vectors of a split are missing: without whole modalities, and at random.

Shape letters in this file:
    N utterances of the split     M modalities     C classes
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch

from ada2i.batch import DialogueBatch
from ada2i.evaluation.metrics import confusion_matrix, weighted_f1
from ada2i.inference.predict import predict
from ada2i.loader.split_data import SplitData
from ada2i.modalities import Modality
from ada2i.model.ada2i import Ada2I
from ada2i.records import UNLABELLED, MissingScore

RATES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)  # as in the studies of missing modalities (GCNet, arXiv 2203.02177)
_SEED = 0  # of the draw, the same for all models and rates: what is missing at a rate is missing at higher ones

# From the vectors that a batch has, (n, M), and its rows in the split to those that are kept.
Keep = Callable[[npt.NDArray[np.bool_], slice], npt.NDArray[np.bool_]]


def missing_scores(model: Ada2I, split: SplitData, batch_dialogues: int, *, whole: float) -> tuple[MissingScore, ...]:
    """Return weighted F1 for every subset of modalities and every rate; empty for a model of one modality.

    At a rate each vector is removed with that probability, but never the last one of an utterance. The split is read
    once.

    Args:
        model: The model, on the CPU.
        split: The split.
        batch_dialogues: Dialogues of a batch.
        whole: Weighted F1 with all vectors, which is the score at rate 0.
    """
    modalities = model.modalities
    if len(modalities) == 1:
        return ()
    draws = np.random.RandomState(_SEED).random_sample((int(split.lengths.sum()), len(modalities)))

    def at_rate(rate: float) -> Keep:
        return lambda present, rows: _thinned(present, draws[rows], rate)

    def only(kept: tuple[Modality, ...]) -> Keep:
        inside = np.array([m in kept for m in modalities])
        return lambda present, rows: present & inside  # noqa: ARG005

    subsets = [part for size in range(1, len(modalities)) for part in combinations(modalities, size)]
    keeps = [*map(only, subsets), *map(at_rate, RATES[1:])]
    scores = [float(weighted_f1(counts)) for counts in _confusions(model, split, batch_dialogues, keeps)]
    found = [MissingScore(kept=part, weighted_f1=score) for part, score in zip(subsets, scores, strict=False)]
    at_rates = zip(RATES, [whole, *scores[len(subsets) :]], strict=True)
    return *found, *(MissingScore(rate=rate, weighted_f1=score) for rate, score in at_rates)


def _confusions(model: Ada2I, split: SplitData, batch_dialogues: int, keeps: Sequence[Keep]) -> npt.NDArray[np.float64]:
    """Return confusion counts for each choice of vectors, ``(choices, C, C)``."""
    classes = model.classes
    counts = np.zeros((len(keeps), classes, classes))
    batches = _batches(model, split, batch_dialogues, keeps)
    for number, (batch, prediction) in enumerate(predict(model, batches, torch.device("cpu"))):
        known = (batch.labels != UNLABELLED).numpy()
        guess = model.chances(prediction.logits).argmax(dim=-1).numpy()
        counts[number % len(keeps)] += confusion_matrix(batch.labels.numpy()[known], guess[known], classes)
    return counts


def _batches(model: Ada2I, split: SplitData, batch_dialogues: int, keeps: Sequence[Keep]) -> Iterator[DialogueBatch]:
    """Yield each batch of the split once for each choice of vectors."""
    start = 0
    for dialogues in split.in_order(batch_dialogues).batches():
        batch = split.batch(dialogues, dialogues)
        rows = slice(start, start + len(batch.labels))
        start = rows.stop
        for keep in keeps:
            kept = torch.from_numpy(keep(_present(batch, model.modalities), rows))
            present = {m: kept[:, place] for place, m in enumerate(model.modalities)}
            features = {m: batch.features[m] * present[m][:, None] for m in model.modalities}
            yield replace(batch, features=features, present=present)


def _present(batch: DialogueBatch, modalities: tuple[Modality, ...]) -> npt.NDArray[np.bool_]:
    return np.stack([batch.present[m].numpy() for m in modalities], axis=1)


def _thinned(present: npt.NDArray[np.bool_], draws: npt.NDArray[np.float64], rate: float) -> npt.NDArray[np.bool_]:
    """Return which vectors ``(n, M)`` remain: those drawn at or above the rate, and the highest of each utterance."""
    ranked = np.where(present, draws, -1.0)
    highest = ranked == ranked.max(axis=1, keepdims=True)
    kept: npt.NDArray[np.bool_] = present & ((draws >= rate) | highest)
    return kept
