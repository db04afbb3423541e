"""A linear probe in closed form: how well vectors of a modality alone predict the labels.

It is ridge regression onto one-hot labels, fitted from sums of products.

Shape letters in this file:
    N utterances     D width of the vectors     C classes
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ada2i.modalities import Modality
from ada2i.records import UNLABELLED

if TYPE_CHECKING:
    from ada2i.batch import DialogueBatch
    from ada2i.loader.split_data import SplitData  # which needs torch; an audit does not

_RIDGE = 1.0  # per row, on standardised vectors: strong, since there may be more columns than rows
_FOLDS = 5
_UTTERANCES = 20_000  # enough to separate strong from weak modalities
_WIDEST = 1024  # maximum columns; of wider vectors, evenly spaced columns are used
_CLIP = 3.0  # deviations: one extreme value must not decide a fold

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]


def fit(gram: Floats, cross: Floats) -> Floats:
    """Fit on standardised vectors.

    Args:
        gram: ``(D + 1, D + 1)`` sums of products among columns, the last of which is all 1.
        cross: ``(D + 1, C)`` those with one-hot labels.

    Returns:
        ``(D + 1, C)`` weights for unstandardised vectors; the weights of the column of 1s come last.
    """
    number = gram[-1, -1]
    mean, prior = gram[-1, :-1] / number, cross[-1] / number
    covariance = gram[:-1, :-1] / number - np.outer(mean, mean)
    deviation = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    deviation[deviation <= 1e-6 * np.abs(mean)] = np.inf  # a constant column gets no weight
    deviation[deviation == 0.0] = np.inf
    correlation = covariance / np.outer(deviation, deviation)
    aim = (cross[:-1] / number - np.outer(mean, prior)) / deviation[:, None]
    weights = np.linalg.solve(correlation + _RIDGE * np.eye(len(mean)), aim) / deviation[:, None]
    return np.vstack([weights, prior - mean @ weights])


def weighted_f1(counts: Floats) -> float:
    """Return the weighted F1 of ``(C, C)`` confusion counts, rows being true classes."""
    support = counts.sum(axis=1)
    f1 = 2 * np.diag(counts) / np.maximum(support + counts.sum(axis=0), 1)
    return float(f1 @ support / support.sum())


def held_out_skill(split: "SplitData", modality: Modality, *, classes: int) -> float:
    """Return the weighted F1 of a probe over 5 folds of dialogues; 0 if too few utterances have the modality."""
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
            weights = fit(gram - own_gram, cross - own_cross)
            np.add.at(counts, (labels[rows], (values[rows] @ weights).argmax(axis=1)), 1)
    return weighted_f1(counts)


def _rows(split: "SplitData", modality: Modality) -> tuple[Floats, Ints, Ints]:
    """Return ``(N, D + 1)`` standardised values whose last column is 1, and ``(N,)`` labels and folds.

    They belong to the utterances that have the modality and a label, in the first dialogues of the split.
    """
    enough = max(1, int(np.searchsorted(np.cumsum(split.lengths), _UTTERANCES)))
    dialogues = range(min(enough, len(split.lengths)))
    batch = split.batch(dialogues, dialogues)
    present = batch.present[modality].numpy() & (batch.labels.numpy() != UNLABELLED)
    values = _standardised(batch, modality, *_thinned(*split.statistics(modality)))[present]
    values = np.hstack([values, np.ones((len(values), 1))])
    return values, batch.labels.numpy()[present], batch.layout.dialogue.numpy()[present] % _FOLDS


def _thinned(mean: Floats32, deviation: Floats32) -> tuple[Floats, Floats]:
    """Return mean and deviation, ``(D,)``, of evenly spaced columns of wide vectors."""
    step = -(-len(mean) // _WIDEST)
    return mean[::step].astype(np.float64), deviation[::step].astype(np.float64)


def _standardised(batch: "DialogueBatch", modality: Modality, mean: Floats, deviation: Floats) -> Floats:
    features = batch.features[modality].numpy()
    values = features[:, :: -(-features.shape[1] // _WIDEST)].astype(np.float64)
    return np.clip((values - mean) / np.where(deviation > 0, deviation, 1.0), -_CLIP, _CLIP)
