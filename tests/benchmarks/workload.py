"""The published settings as work to measure: widths, dialogue lengths, batches of random features."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from ada2i.batch import DialogueBatch, Layout
from ada2i.config import TrainConfig
from ada2i.modalities import Modality
from ada2i.presets import resolve


@dataclass(frozen=True)
class Workload:
    """What a dataset's published settings make a machine do."""

    name: str
    dialogues: int  # of the train split
    mean_length: float
    longest: int
    classes: int
    widths: Mapping[Modality, int]

    def config(self, **overrides: Any) -> TrainConfig:
        """Return the released network with padding masked; double underscores stand for dots."""
        masked = {"model.encoder.attend_to_padding": False, "model.afw.average_padding": False}
        dotted = {name.replace("__", "."): value for name, value in overrides.items()}
        return resolve(preset="reference", settings=self.name, overrides=masked | dotted)

    def batch(self, dialogues: int, seed: int) -> DialogueBatch:
        """Return one global batch of random features with the dataset's dialogue lengths, as one rank's share."""
        random = np.random.RandomState(seed)
        lengths = tuple(int(n) for n in np.clip(random.gamma(4.0, self.mean_length / 4.0, dialogues), 1, self.longest))
        rows = sum(lengths)
        return DialogueBatch(
            features={m: torch.from_numpy(random.randn(rows, w).astype(np.float32)) for m, w in self.widths.items()},
            present={m: torch.ones(rows, dtype=torch.bool) for m in self.widths},
            labels=torch.from_numpy(random.randint(0, self.classes, rows)),
            speakers=torch.zeros(rows, dtype=torch.int64),
            layout=Layout(lengths, max(lengths)),
            global_utterances=rows,
            global_dialogues=len(lengths),
        )


def part_of(batch: DialogueBatch, own: Sequence[int]) -> DialogueBatch:
    """Return the share of a global batch that holds some of its dialogues."""
    starts = np.cumsum([0, *batch.layout.lengths])
    rows = torch.from_numpy(np.concatenate([np.arange(starts[d], starts[d + 1]) for d in own]))
    return replace(
        batch,
        features={m: x[rows] for m, x in batch.features.items()},
        present={m: x[rows] for m, x in batch.present.items()},
        labels=batch.labels[rows],
        speakers=batch.speakers[rows],
        layout=Layout(tuple(batch.layout.lengths[d] for d in own), batch.layout.padded_length),
    )


WORKLOADS = {
    "iemocap": Workload("iemocap", 120, 49.0, 110, 6, {"text": 768, "audio": 512, "visual": 1024}),
    "meld": Workload("meld", 1038, 9.6, 33, 7, {"text": 768, "audio": 300, "visual": 342}),
}


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    Attributes:
        name: What it is.
        value: The median.
        unit: Of the value.
        target: What it should reach; None: only reported.
        at_most: Whether the target is an upper bound.
    """

    name: str
    value: float
    unit: str
    target: float | None = None
    at_most: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if self.target is None:
            return None
        return self.value <= self.target if self.at_most else self.value >= self.target


def finish(target: Path | None, figures: Sequence[Figure]) -> None:
    """Print figures as a table, and write them as JSON where a file is wanted."""
    table = Table("what", "measured", "target", "")
    for figure in figures:
        sign = {None: "", True: "[green]met[/]", False: "[yellow]not met[/]"}[figure.met]
        bound = "" if figure.target is None else f"{'at most' if figure.at_most else 'at least'} {figure.target:,g}"
        table.add_row(figure.name, f"{figure.value:,.4g} {figure.unit}", bound, sign)
    Console().print(table)
    if target is not None:
        target.write_text(json.dumps([asdict(figure) for figure in figures], indent=1))
