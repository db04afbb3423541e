"""What a modality tells by itself: a linear probe's score on train dialogues that it did not see.

Shape letters in this file:
    N utterances     D width of the modality's vectors     C classes
"""

import numpy as np
from numpy.typing import NDArray

from ada2i.evaluation import ridge
from ada2i.loader.split_data import SplitData
from ada2i.modalities import Modality

_FOLDS = 5
_UTTERANCES = 20_000  # are enough to tell strong from weak
_WIDEST = 1024  # columns; of wider vectors evenly spaced ones
_CLIP = 3.0  # deviations: one wild value must not decide a fold


def held_out_skill(split: SplitData, modality: Modality, *, classes: int) -> float:
    """Return the weighted F1 of a ridge classifier over 5 folds of dialogues; 0 where too few have the modality."""
    values, labels, folds = _rows(split, modality)
    if len(labels) < _FOLDS * classes:
        return 0.0
    hot = np.eye(classes)[labels]
    inside = [folds == fold for fold in range(_FOLDS)]
    grams = [values[rows].T @ values[rows] for rows in inside]
    crosses = [values[rows].T @ hot[rows] for rows in inside]
    gram, cross = sum(grams), sum(crosses)
    counts = np.zeros((classes, classes))
    for rows, own_gram, own_cross in zip(inside, grams, crosses, strict=True):
        if rows.any():
            weights = ridge.fit(gram - own_gram, cross - own_cross)
            np.add.at(counts, (labels[rows], (values[rows] @ weights).argmax(axis=1)), 1)
    return ridge.weighted_f1(counts)


def _rows(split: SplitData, modality: Modality) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Return ``(N, D + 1)`` standardised values whose last column is 1, ``(N,)`` labels and folds, of what is there."""
    enough = max(1, int(np.searchsorted(np.cumsum(split.lengths), _UTTERANCES)))
    dialogues = range(min(enough, len(split.lengths)))
    batch = split.batch(dialogues, dialogues)
    there = batch.present[modality].numpy()
    mean, deviation = split.statistics(modality)
    step = -(-len(mean) // _WIDEST)
    mean, deviation = mean[::step], deviation[::step]
    values = batch.features[modality].numpy()[there, ::step].astype(np.float64)
    values = np.clip((values - mean) / np.where(deviation > 0, deviation, 1.0), -_CLIP, _CLIP)
    values = np.hstack([values, np.ones((len(values), 1))])
    return values, batch.labels.numpy()[there], batch.layout.dialogue.numpy()[there] % _FOLDS
