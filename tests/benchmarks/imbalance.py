"""Which balance methods help where one modality is fast and another slow: ``python -m tests.benchmarks.imbalance``.

Generated utterances of four classes. Text shows the class by its direction, which a linear map learns in a few steps,
but a random class in 35 % of the utterances. Audio shows it by signs of products of pairs of values, which takes
longer, and a random class in 10 %. Visual is noise. Weighted F1 on test of the last epoch, mean and standard deviation
over seeds, of the network and of audio's vote alone. It says nothing about recordings. ``--table FILE`` writes such
data as a table instead, for `ada2i reproduce`, which compares its rows in pairs.
"""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.console import Console
from rich.table import Table

from ada2i.balance import make_balancer
from ada2i.balance.votes import encodings
from ada2i.batch import DialogueBatch, Layout
from ada2i.config import BALANCE_METHODS
from ada2i.evaluation.metrics import confusion_matrix, scores
from ada2i.modalities import Modality
from ada2i.model.ada2i import Ada2I
from ada2i.model.build import build_model
from ada2i.presets import resolve
from ada2i.training.schedule import set_rate
from ada2i.training.status import StepKey
from ada2i.training.step import train_step
from ada2i.training.update import make_optimizer
from tests.benchmarks.workload import Figure, finish

CLASSES, LENGTH, DIALOGUES = 4, 8, 16  # of a batch
BATCHES, EPOCHS = 16, 12
WIDTHS: dict[Modality, int] = {"text": 12, "audio": 16, "visual": 8}
SETTINGS = {
    "model.hidden_dim": 32,
    "model.afw.rank": 4,
    "model.encoder.feedforward_dim": 64,
    "model.encoder.dropout": 0.1,
    "model.encoder.input_dropout": 0.0,
    "model.encoder.inertia": 0.0,
    "model.amw.weights": "equal",
    "model.normalise": "none",
    "training.learning_rate": 3e-3,
    "training.epochs": EPOCHS,
}


def batch_of(random: np.random.RandomState, means: np.ndarray, first: int) -> DialogueBatch:
    """Return a batch of dialogues whose indices start with ``first``."""
    rows = DIALOGUES * LENGTH
    labels = random.randint(0, CLASSES, rows)
    seen = np.where(random.random_sample(rows) < 0.35, random.randint(0, CLASSES, rows), labels)
    heard = np.where(random.random_sample(rows) < 0.10, random.randint(0, CLASSES, rows), labels)
    text = means[seen] + 0.5 * random.standard_normal((rows, WIDTHS["text"]))
    audio = random.standard_normal((rows, WIDTHS["audio"]))
    for bit in range(2):
        sign = np.where(heard >> bit & 1, 1.0, -1.0)
        audio[:, 2 * bit + 1] = sign * np.sign(audio[:, 2 * bit]) * np.abs(audio[:, 2 * bit + 1])
    audio[:, :4] += np.sign(audio[:, :4])
    visual = random.standard_normal((rows, WIDTHS["visual"]))
    features: dict[Modality, np.ndarray] = {"text": text, "audio": audio, "visual": visual}
    return DialogueBatch(
        features={m: torch.from_numpy(x.astype(np.float32)) for m, x in features.items()},
        present={m: torch.ones(rows, dtype=torch.bool) for m in features},
        labels=torch.from_numpy(labels),
        speakers=torch.zeros(rows, dtype=torch.int64),
        layout=Layout((LENGTH,) * DIALOGUES, LENGTH),
        global_utterances=rows,
        global_dialogues=DIALOGUES,
        dialogues=tuple(range(first, first + DIALOGUES)),
        members=tuple(range(first, first + DIALOGUES)),
    )


def planted_table(seed: int) -> pa.Table:
    """Return train, a small dev and test as a table; the means of text are those of all three."""
    random = np.random.RandomState(seed)
    means = random.standard_normal((CLASSES, WIDTHS["text"]))
    splits = ["train"] * BATCHES + ["dev"] * (BATCHES // 4) + ["test"] * BATCHES
    batches = [batch_of(random, means, DIALOGUES * number) for number in range(len(splits))]
    rows = np.arange(len(splits) * DIALOGUES * LENGTH)
    columns: dict[str, Any] = {
        "dialogue_id": pa.array([f"d{row // LENGTH:04}" for row in rows]),
        "utterance_index": pa.array(rows % LENGTH),
        "split": pa.array(np.repeat(splits, DIALOGUES * LENGTH)),
        "label": pa.array([f"c{label}" for batch in batches for label in batch.labels.tolist()]),
    }
    for m, width in WIDTHS.items():
        values = np.concatenate([batch.features[m].numpy() for batch in batches])
        columns[f"{m}_feat"] = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), width)
    return pa.table(columns)


def trained(method: str, seed: int) -> tuple[float, float]:
    """Return the weighted F1 on test of the network and of audio's vote."""
    random = np.random.RandomState(seed)
    means = random.standard_normal((CLASSES, WIDTHS["text"]))
    train = [batch_of(random, means, DIALOGUES * number) for number in range(BATCHES)]
    test = [batch_of(random, means, 0) for _ in range(BATCHES)]
    model = network(taught(train, seed) if method == "umt" else train, method, tuple(WIDTHS), seed)
    with torch.no_grad():
        found = [model(batch) for batch in test]
    labels = torch.cat([batch.labels for batch in test]).numpy()
    joint = torch.cat([prediction.logits.argmax(dim=1) for prediction in found]).numpy()
    audio = torch.cat([prediction.votes[1].argmax(dim=1) for prediction in found]).numpy()
    return weighted_f1(labels, joint), weighted_f1(labels, audio)


def network(train: Sequence[DialogueBatch], method: str, modalities: tuple[Modality, ...], seed: int) -> Ada2I:
    """Return a network trained on some modalities."""
    overrides = {**SETTINGS, "balance.method": method, "model.modalities": modalities}
    config = resolve(preset="corrected", settings="demo", overrides=overrides)
    torch.manual_seed(seed)
    model = build_model(config, widths=WIDTHS, classes=CLASSES)
    optimizer = make_optimizer(model, learning_rate=config.training.learning_rate, weight_decay=1e-8)
    balancer = make_balancer(config)
    for epoch in range(EPOCHS):
        balancer.set_epoch(epoch + 1)
        for number, batch in enumerate(train):
            step = epoch * BATCHES + number
            set_rate(optimizer, config.training, step=step, steps=EPOCHS * BATCHES)
            train_step(model, [batch], optimizer, key=StepKey(seed, step), clip_norm=2.0, balancer=balancer)
    return model.eval()


def taught(train: Sequence[DialogueBatch], seed: int) -> list[DialogueBatch]:
    """Return batches with what the encoders of networks trained on one modality each say of them."""
    outputs = []  # by modality, of each batch
    for m in WIDTHS:
        alone = [replace(batch, features={m: batch.features[m]}, present={m: batch.present[m]}) for batch in train]
        teacher = network(alone, "none", (m,), seed)
        with torch.no_grad():
            outputs.append([encodings(teacher(batch), batch)[m] for batch in alone])
    stacked = [torch.stack(of_batch, dim=1) for of_batch in zip(*outputs, strict=True)]
    return [replace(batch, taught_encodings=output) for batch, output in zip(train, stacked, strict=True)]


def weighted_f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Return the weighted F1 of predictions."""
    counts = confusion_matrix(labels, predictions, CLASSES)
    return scores(counts, [str(number) for number in range(CLASSES)], "test").weighted_f1


def measure(methods: Sequence[str], seeds: int) -> list[Figure]:
    """Train by every method, and print each row as soon as it is known."""
    figures = []
    table = Table("method", "weighted F1", "of audio's vote")
    for method in methods:
        runs = [trained(method, seed) for seed in range(1, seeds + 1)]
        shown = []
        for name, values in zip(("the network", "audio alone"), zip(*runs, strict=True), strict=True):
            shown.append(f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}")
            figures.append(Figure(f"planted imbalance, {method}: {name}", statistics.mean(values), "weighted F1"))
        table.add_row(method, *shown)
        Console().print(method, *shown)
    Console().print(table)
    return figures


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.imbalance")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", default=",".join(BALANCE_METHODS))
    parser.add_argument("--table", type=Path, help="Write data to this Parquet file, and train nothing.")
    arguments = parser.parse_args()
    if arguments.table:
        pq.write_table(planted_table(1), arguments.table)
        return
    torch.set_num_threads(1)
    finish(arguments.json, measure(arguments.methods.split(","), arguments.seeds))


if __name__ == "__main__":
    main()
