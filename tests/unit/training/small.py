"""A training that takes a blink: the demo corpus, cut small, and a tiny network."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from ada2i.config import TrainConfig
from ada2i.data.manifest import open_features
from ada2i.importers.demo import write_demo_corpus
from ada2i.loader.split_data import open_split
from ada2i.presets import resolve
from ada2i.records import EpochRecord
from ada2i.training.reporter import Reporter
from ada2i.training.task import Task, TeacherOutputs

TINY: Mapping[str, Any] = {
    "model.hidden_dim": 8,
    "model.afw.rank": 2,
    "model.encoder.layers": 1,
    "model.encoder.feedforward_dim": 8,
    "training.batch_dialogues": 7,
    "training.epochs": 4,
    "training.seeds": [5],
    "balance.method": "ada2i",
    "balance.start_epoch": 2,
    "resources.checkpoint_minutes": 0.0,
}


def tiny_config(preset: str = "reference", **more: Any) -> TrainConfig:
    """Return a tiny config; keywords are dotted fields with __ for dots."""
    overrides = {name.replace("__", "."): value for name, value in more.items()}
    return resolve(preset=preset, settings="demo", overrides={**TINY, **overrides})


def tiny_task(root: Path, run: str, **more: Any) -> Task:
    """Return the task of a tiny run on 26 synthetic dialogues under a folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(root))  # decoded shards
        features = open_features(write_demo_corpus((root / "store").as_uri(), dialogues=26))
        config = tiny_config(**more)
        modalities, shuffle_gib = config.model.modalities, config.training.shuffle_gib
        train, dev = (open_split(features, s, modalities, shuffle_gib=shuffle_gib) for s in ("train", "dev"))
    outputs = random_outputs(config, int(train.lengths.sum()), len(features.manifest.labels))
    return Task(config, features.info(), 5, train, dev, (root / run).as_uri(), torch.device("cpu"), outputs)


def random_outputs(config: TrainConfig, rows: int, classes: int) -> TeacherOutputs | None:
    """Return random outputs of teachers, if the config learns from their encoders."""
    if not config.learns_encodings:
        return None
    random = torch.Generator().manual_seed(3)
    encodings = torch.randn(rows, len(config.model.modalities), config.model.hidden_dim, generator=random)
    return TeacherOutputs(torch.full((rows, classes), 1 / classes), encodings)


class Listener(Reporter):
    """A reporter that remembers, and fails after a given epoch."""

    def __init__(self, die_after: int | None = None) -> None:
        self.first_steps = 0
        self.epochs: list[int] = []
        self.die_after = die_after

    def first_step(self) -> None:
        self.first_steps += 1

    def epoch(self, seed: int, record: EpochRecord) -> None:
        assert seed == 5
        self.epochs.append(record.epoch)
        if record.epoch == self.die_after:
            raise KeyboardInterrupt("killed")
