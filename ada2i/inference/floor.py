"""The linear floor: the score that a trained model must exceed to be worth its training.

Multinomial logistic regression on each utterance's standardised vectors, next to the decayed means of its neighbours
that the relational encoder is given (``ada2i.model.relational``). It is convex, has no seed, and takes seconds. Its one
choice, the strength of L2, is made on dev. In regression it is ridge regression of the targets on the same inputs.

Shape letters in this file:
    N labelled utterances     P inputs: vectors and means of all modalities, and a column of 1s     C classes
"""

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ada2i.batch import DialogueBatch
from ada2i.data.manifest import FeatureSet, open_features
from ada2i.errors import DataError
from ada2i.evaluation.metrics import by_dialogue, confusion_matrix, dialogue_bootstrap, scores, weighted_f1
from ada2i.evaluation.regression import regression_scores
from ada2i.inference.predict import Floats, Ints
from ada2i.loader.split_data import SplitData, open_split
from ada2i.modalities import Modality
from ada2i.model.ada2i import chances_of, sign_of
from ada2i.model.inputs import Standardise
from ada2i.model.relational import relation_means
from ada2i.records import Baseline

# Weights of half the squared norm; the loss is a mean over utterances.
_L2 = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
_PATIENCE = 2  # weaker ones that are tried without a better score on dev
_STEPS = 30  # of LBFGS, from the solution of the stronger L2
_CELLS = 1 << 27  # largest table of inputs, 512 MiB: of a larger train split, the first dialogues
_VECTORS = 6  # of an utterance and modality: its own and five means
_WINDOW_GIB = 0.5  # larger splits stream
_BATCH, _ROWS = 64, 4096  # dialogues and, about, utterances that are read at a time
_CLIP = 5.0  # deviations: one extreme value must not decide
_DECAY, _DIALOGUE_DECAY = 3.0, 15.0  # as in the relational encoder's defaults


@dataclass(frozen=True)
class Floor:
    """A fitted linear model.

    Attributes:
        modalities: The modalities that it reads.
        norms: How their vectors are standardised.
        weights: ``(P, C)``; the bias is the last row.
        l2: The strength that was chosen on dev.
        dev_weighted_f1: Its weighted F1 there.
        utterances: Labelled utterances of train that it was fitted to.
        signs: Of regression: the classes of a number's sign. 0: classification.
        dev_mae: Of regression: its mean absolute error on dev.
    """

    modalities: tuple[Modality, ...]
    norms: dict[Modality, Standardise]
    weights: Tensor
    l2: float
    dev_weighted_f1: float
    utterances: int
    signs: int = 0
    dev_mae: float | None = None

    def predict(self, split: SplitData) -> tuple[Ints, Floats]:
        """Return true classes ``(N,)`` and probabilities ``(N, C)`` of a split, unlabelled utterances included."""
        labels, outputs = self.outputs(split)
        return labels, chances_of(outputs, self.signs).numpy()

    def outputs(self, split: SplitData) -> tuple[Ints, Tensor]:
        """Return true classes ``(N,)`` and logits ``(N, C)``, or in regression numbers ``(N, 1)``."""
        found = [(b.labels, _inputs(b, self.norms) @ self.weights) for b in _all(split)]
        return torch.cat([labels for labels, _ in found]).numpy(), torch.cat([outputs for _, outputs in found])

    @property
    def worth(self) -> float:
        """Its score on dev; higher is better."""
        return self.dev_weighted_f1 if self.dev_mae is None else -self.dev_mae


@functools.lru_cache(maxsize=8)  # the runs of a study share features, whose content never changes
def baselines(
    uri: str, modalities: tuple[Modality, ...], *, split: str = "test", regression: bool = False
) -> tuple[Baseline, ...]:
    """Return the scores on a split of the majority class of train, and of linear models on each modality and on all.

    In regression, the mean of train's targets takes the place of the majority class.
    """
    features = open_features(uri)
    names = features.manifest.labels
    train, dev, held = open_for_floor(features, modalities, split, regression=regression)
    if regression:
        return tuple(_of_numbers(train, dev, held, modalities, features))
    most = int(train.class_counts.argmax())
    labels = np.concatenate([batch.labels.numpy() for batch in _all(held)])
    found = [_baseline(f"always {names[most]}", held, labels, np.full_like(labels, most), names)]
    for chosen in _subsets(modalities):
        floor = fit_floor(train, dev, chosen, classes=len(names))
        row = _baseline(f"linear on {' + '.join(chosen)}", held, labels, floor.predict(held)[1].argmax(axis=1), names)
        facts = {"dev_weighted_f1": floor.dev_weighted_f1, "l2": floor.l2, "utterances": floor.utterances}
        found.append(row.model_copy(update=facts))
    return tuple(found)


def _of_numbers(
    train: SplitData, dev: SplitData, held: SplitData, modalities: Sequence[Modality], features: FeatureSet
) -> Iterator[Baseline]:
    names, targets = features.manifest.labels, targets_of(held)

    def scored(name: str, labels: Ints, values: Tensor) -> Baseline:
        row = _baseline(name, held, labels, sign_of(values, len(names)).numpy(), names)
        found = regression_scores(values.numpy(), targets, features.manifest.dataset)
        return row.model_copy(update={"regression": found})

    mean = float(np.nanmean(targets_of(train).astype(np.float64)))
    for place, chosen in enumerate(_subsets(modalities)):
        floor = fit_floor(train, dev, chosen, classes=len(names))
        labels, values = floor.outputs(held)
        if not place:
            yield scored("always the mean of train", labels, torch.full((len(labels),), mean))
        facts = {"dev_weighted_f1": floor.dev_weighted_f1, "dev_mae": floor.dev_mae}
        facts |= {"l2": floor.l2, "utterances": floor.utterances}
        yield scored(f"linear on {' + '.join(chosen)}", labels, values[:, 0]).model_copy(update=facts)


def targets_of(split: SplitData) -> Floats:
    """Return the targets of a split that was opened with them, ``(N,)``, NaN for an utterance without one."""
    return np.concatenate([batch.targets.numpy() for batch in _all(split) if batch.targets is not None])


def _all(split: SplitData) -> Iterator[DialogueBatch]:
    return (split.batch(dialogues, dialogues) for dialogues in split.in_order(_dialogues(split)).batches())


def _subsets(modalities: Sequence[Modality]) -> list[tuple[Modality, ...]]:
    """Return each modality alone, then all of them."""
    return list(dict.fromkeys([*((modality,) for modality in modalities), tuple(modalities)]))


def best_floor(train: SplitData, dev: SplitData, modalities: Sequence[Modality], *, classes: int) -> Floor:
    """Return the linear model with the best score on dev, of those on each modality and on all.

    Raises:
        DataError: Train or dev has no labelled utterance.
    """
    fitted = [fit_floor(train, dev, chosen, classes=classes) for chosen in _subsets(modalities)]
    return max(fitted, key=lambda floor: floor.worth)


def open_for_floor(
    features: FeatureSet, modalities: Sequence[Modality], split: str, *, regression: bool = False
) -> tuple[SplitData, SplitData, SplitData]:
    """Open train, dev and the split to score."""
    train, dev, held = (
        open_split(features, name, modalities, shuffle_gib=_WINDOW_GIB, targets=regression)
        for name in ("train", "dev", split)
    )
    return train, dev, held


def _baseline(name: str, split: SplitData, labels: Ints, guess: Ints, names: Sequence[str]) -> Baseline:
    counts = by_dialogue(labels, guess, split.lengths, len(names))
    got = scores(counts.sum(axis=0), names, "test")
    return Baseline(
        name=name,
        weighted_f1=got.weighted_f1,
        macro_f1=got.macro_f1,
        accuracy=got.accuracy,
        interval=dialogue_bootstrap(counts),
    )


def fit_floor(train: SplitData, dev: SplitData, modalities: Sequence[Modality], *, classes: int) -> Floor:
    """Fit the linear model on some modalities together; L2 is the one with the best score on dev.

    A missing vector counts as the mean of train, so every labelled utterance counts; in regression, every utterance
    with a target.

    Raises:
        DataError: Train or dev has no labelled utterance.
    """
    batches = list(_first(train, modalities))
    norms = {m: _norm(batches, m) for m in modalities}
    inputs, labels = _table(batches, norms, "train")
    dev_inputs, dev_labels = _table(_first(dev, modalities), norms, "dev")
    if train.targets:
        weights, l2, mae = _ridge(inputs, labels, dev_inputs, dev_labels)
        floor = Floor(tuple(modalities), norms, weights, l2, 0.0, len(labels), signs=classes, dev_mae=mae)
        truth, chances = floor.predict(dev)
        counts = confusion_matrix(truth[truth >= 0], chances.argmax(axis=1)[truth >= 0], classes)
        return replace(floor, dev_weighted_f1=float(weighted_f1(counts)))
    weights, l2, score = solve_for(inputs, labels, dev_inputs, dev_labels, classes=classes)
    return Floor(tuple(modalities), norms, weights, l2, score, len(labels))


def solve_for(
    inputs: Tensor, labels: Tensor, dev_inputs: Tensor, dev_labels: Tensor, *, classes: int
) -> tuple[Tensor, float, float]:
    """Return the weights ``(P, C)`` with the best strength of L2 on dev, that strength, and weighted F1 on dev.

    Args:
        inputs: ``(N, P)``.
        labels: ``(N,)``.
        dev_inputs: ``(N, P)`` of dev.
        dev_labels: ``(N,)`` of dev.
        classes: ``C``.
    """
    best: tuple[Tensor, float, float] | None = None
    weights, worse = torch.zeros(inputs.shape[1], classes), 0
    for l2 in _L2:
        weights = _solve(inputs, labels, weights, l2)
        guess = (dev_inputs @ weights).argmax(dim=1).numpy()
        score = float(weighted_f1(confusion_matrix(dev_labels.numpy(), guess, classes)))
        if best is None or score > best[2]:
            best, worse = (weights, l2, score), 0
        worse += score < best[2]  # at the strongest L2 all predictions are the majority class, so scores are equal
        if worse == _PATIENCE:
            break
    assert best is not None
    return best


def _ridge(inputs: Tensor, targets: Tensor, dev_inputs: Tensor, dev_targets: Tensor) -> tuple[Tensor, float, float]:
    """Return the weights ``(P, 1)`` with the smallest mean absolute error on dev, their L2, and that error."""
    mean, middle = inputs[:, :-1].mean(dim=0), targets.mean()
    centred, aim = inputs[:, :-1] - mean, targets - middle
    few = len(centred) < centred.shape[1]  # then the system of the utterances is smaller
    gram = (centred @ centred.T if few else centred.T @ centred).double()
    right = (aim if few else centred.T @ aim).double()
    best: tuple[Tensor, float, float] | None = None
    for l2 in (100.0, 30.0, *_L2):
        found = torch.linalg.solve(gram + l2 * len(centred) * torch.eye(len(gram), dtype=gram.dtype), right).float()
        slopes = centred.T @ found if few else found
        weights = torch.cat([slopes, (middle - mean @ slopes)[None]])[:, None]
        mae = float((dev_inputs @ weights - dev_targets[:, None]).abs().mean())
        if best is None or mae < best[2]:
            best = weights, l2, mae
    assert best is not None
    return best


def _first(split: SplitData, modalities: Sequence[Modality]) -> Iterator[DialogueBatch]:
    """Yield the batches of a split, or those of its first dialogues if all inputs together would be too large."""
    cells = 0
    for dialogues in split.in_order(_dialogues(split)).batches():
        batch = split.batch(dialogues, dialogues)
        yield batch
        labelled = int(batch.known.sum())
        cells += (len(batch.labels) + _VECTORS * labelled) * sum(batch.features[m].shape[1] for m in modalities)
        if cells > _CELLS:
            return


def _dialogues(split: SplitData) -> int:
    """Return the number of dialogues that are read at a time."""
    return max(1, min(_BATCH, int(_ROWS / split.lengths.mean())))


def _norm(batches: Sequence[DialogueBatch], modality: Modality) -> Standardise:
    """Return the standardisation by mean and deviation of the vectors that are present."""
    values = torch.cat([batch.features[modality][batch.present[modality]] for batch in batches]).double()
    norm = Standardise(width=values.shape[1])
    if len(values):
        norm.set(values.mean(dim=0), values.std(dim=0, correction=0))
    return norm


def _table(batches: Iterable[DialogueBatch], norms: dict[Modality, Standardise], split: str) -> tuple[Tensor, Tensor]:
    """Return ``(N, P)`` inputs and ``(N,)`` labels, or in regression targets."""
    known = [(batch, batch.known) for batch in batches]
    labels = torch.cat([(batch.labels if batch.targets is None else batch.targets)[rows] for batch, rows in known])
    if not len(labels):
        raise DataError(
            f"The {split} split must hold labelled utterances for a linear model, but its first dialogues hold none. "
            "Label some, or import the features again."
        )
    return torch.cat([_inputs(batch, norms)[rows] for batch, rows in known]), labels


@torch.no_grad()
def _inputs(batch: DialogueBatch, norms: dict[Modality, Standardise]) -> Tensor:
    parts = [torch.ones(len(batch.labels), 1)]
    for modality, norm in norms.items():
        own = norm(batch.features[modality], batch.present[modality]).clamp(-_CLIP, _CLIP)
        there = batch.present[modality]
        means = relation_means(
            own, batch.layout, batch.speakers, there, decays=(_DECAY,), dialogue_decay=_DIALOGUE_DECAY
        )
        parts = [own, means, *parts]
    return torch.cat(parts, dim=1)


def _solve(inputs: Tensor, labels: Tensor, start: Tensor, l2: float) -> Tensor:
    """Return the weights that minimise the mean cross-entropy plus the L2 term, which spares the bias."""
    weights = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([weights], max_iter=_STEPS, tolerance_change=1e-6, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(inputs @ weights, labels) + 0.5 * l2 * weights[:-1].square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weights.detach()
