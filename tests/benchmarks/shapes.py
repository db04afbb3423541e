"""The default on feature sets of 20 shapes: ``python -m tests.benchmarks.shapes [--json FILE] [--seeds N]``.

Generated dialogues: emotions persist from one utterance to the next and follow the other speaker's, vectors show the
class by their direction, with noise. Few or many dialogues, short or long ones, one to three modalities, two to twenty
classes, rare classes, few labels, absent vectors. Each is trained with the default configuration; its test weighted F1
is next to the linear floor, and a score that is not above the floor must be said in the report.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

import ada2i
from ada2i.reports.report import render_report
from tests.benchmarks.workload import Figure, finish

_TEST = 0.25  # of the dialogues


@dataclass(frozen=True)
class Shape:
    """A feature set.

    Attributes:
        name: What is particular about it.
        dialogues: Of train and dev.
        length: Mean number of utterances of a dialogue.
        widths: Width of the vectors, by modality.
        classes: Number of classes.
        labelled: Share of the utterances with a label.
        present: Share of the vectors that are not absent.
        signal: Distance of two classes' means, in standard deviations of the noise.
        balance: Parameter of the Dirichlet distribution of class shares; small ones make rare classes.
        speakers: Of a dialogue.
    """

    name: str
    dialogues: int = 100
    length: int = 12
    widths: tuple[tuple[str, int], ...] = (("text", 96), ("audio", 32))
    classes: int = 4
    labelled: float = 1.0
    present: float = 1.0
    signal: float = 2.0
    balance: float = 5.0
    speakers: int = 2


TEXT, AUDIO = (("text", 96),), (("audio", 32),)
ALL = (("text", 96), ("audio", 32), ("visual", 48))
SHAPES = (
    Shape("plain"),
    Shape("two classes", classes=2),
    Shape("20 classes", classes=20, signal=4.0),
    Shape("rare classes", classes=7, balance=0.7),
    Shape("few dialogues", dialogues=12),
    Shape("four dialogues", dialogues=4, length=60),
    Shape("many short dialogues", dialogues=600, length=3),
    Shape("single utterances", dialogues=800, length=1, speakers=1),
    Shape("long dialogues", dialogues=12, length=300),
    Shape("one speaker", speakers=1),
    Shape("eight speakers", speakers=8, length=30),
    Shape("text only", widths=TEXT),
    Shape("audio only", widths=AUDIO),
    Shape("three modalities", widths=ALL),
    Shape("wide text", widths=(("text", 1024), ("audio", 32))),
    Shape("narrow vectors", widths=(("text", 4), ("audio", 3)), classes=3),
    Shape("5 % labelled", labelled=0.05, dialogues=300),
    Shape("half of the vectors absent", present=0.5, widths=ALL),
    Shape("weak signal", signal=0.7),
    Shape("strong signal", signal=6.0),
)


def table_of(shape: Shape, seed: int) -> pa.Table:
    """Return the shape's utterances, with a column for each modality."""
    random = np.random.RandomState(seed)
    shares = random.dirichlet([shape.balance] * shape.classes)
    means = {name: random.standard_normal((shape.classes, width)) for name, width in shape.widths}
    columns: dict[str, list[Any]] = {}
    tested = max(2, round(shape.dialogues * _TEST / (1 - _TEST)))
    for number in range(shape.dialogues + tested):
        rows = 1 if shape.length == 1 else max(2, random.poisson(shape.length))
        speakers = random.randint(0, shape.speakers, rows)
        labels = _emotions(random, shares, speakers)
        known = random.random_sample(rows) < shape.labelled
        columns.setdefault("dialogue_id", []).extend([f"d{number}"] * rows)
        columns.setdefault("utterance_index", []).extend(range(rows))
        columns.setdefault("speaker", []).extend(f"s{who}" for who in speakers)
        columns.setdefault("split", []).extend(["test" if number >= shape.dialogues else "train"] * rows)
        columns.setdefault("label", []).extend(
            f"c{label:02}" if there else None for label, there in zip(labels, known, strict=True)
        )
        for name, width in shape.widths:
            scale = shape.signal / np.sqrt(2 * width)
            vectors = scale * means[name][labels] + random.standard_normal((rows, width))
            there = random.random_sample(rows) < shape.present
            cells = [row.astype(np.float32) if here else None for row, here in zip(vectors, there, strict=True)]
            columns.setdefault(f"{name}_feat", []).extend(cells)
    types = {f"{name}_feat": pa.list_(pa.float32(), width) for name, width in shape.widths}
    return pa.table({name: pa.array(column, types.get(name)) for name, column in columns.items()})


def _emotions(random: np.random.RandomState, shares: np.ndarray, speakers: np.ndarray) -> np.ndarray:
    """Return class indices: half of the time the speaker's last one, a fifth of the time the previous utterance's."""
    labels = random.choice(len(shares), size=len(speakers), p=shares)
    last: dict[int, int] = {}
    for i, who in enumerate(speakers):
        drawn = random.random_sample()
        if drawn < 0.5 and who in last:
            labels[i] = last[who]
        elif drawn < 0.7 and i:
            labels[i] = labels[i - 1]
        last[who] = labels[i]
    return labels


def measure(seeds: int) -> tuple[Table, list[Figure]]:
    """Train the default on all shapes."""
    columns = ("shape", "utterances", "weighted F1", "linear floor", "its interval", "report")
    table, above, reported = Table(*columns), 0, 0
    for number, shape in enumerate(SHAPES):
        frame, chosen = table_of(shape, number), range(1, seeds + 1)
        with Console(stderr=True).status(f"{shape.name}: {len(frame):,} utterances"), TemporaryDirectory() as root:
            # The audit refuses vectors that are mostly absent unless that is allowed.
            options: dict[str, Any] = {"allow": ["missing-vectors"], "progress": False}
            run = ada2i.train(frame, root=root, dataset="generated", seeds=chosen, **options)
        score, floor = run.scores["weighted_f1"].mean, run.floor
        assert floor is not None
        assert floor.interval is not None
        said = "Not above the linear floor" in render_report(run.result)
        above += score >= floor.interval.low
        reported += (score > floor.weighted_f1) != said
        interval = f"{floor.interval.low:.3f} to {floor.interval.high:.3f}"
        shown = f"{score:.3f}", f"{floor.weighted_f1:.3f}", interval, "says that it is not above" if said else "-"
        table.add_row(shape.name, f"{len(frame):,}", *shown)
    count = len(SHAPES)
    return table, [
        Figure("shapes: at least the floor's lower bound", above, f"of {count}", count),
        Figure("shapes: a score not above the floor is said in the report", reported, f"of {count}", count),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args(arguments)
    table, figures = measure(options.seeds)
    Console().print(table)
    finish(options.json, figures)


if __name__ == "__main__":
    main()
