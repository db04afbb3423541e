"""A seed whose features stream: the weights of one whose features are held, wherever it is killed."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ada2i import checkpoint, storage
from ada2i.data import shards
from ada2i.data.manifest import open_features
from ada2i.loader.chunks import MappedShards
from ada2i.loader.split_data import open_split
from ada2i.loader.stream import Stream
from ada2i.training import fit as fitting
from ada2i.training.fit import fit
from ada2i.training.step import StepReport, train_step
from ada2i.training.task import Task
from tests.unit.training.small import Listener, tiny_task

EPOCHS = 3
WINDOW = {"training__shuffle_gib": 25_000 / 2**30, "training__epochs": EPOCHS, "preset": "corrected"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for sets in small shards, decoded inside."""
    folder = tmp_path_factory.mktemp("streaming")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_BYTES", 10_000)
        patch.setattr(tempfile, "tempdir", str(folder))
        yield folder


@pytest.fixture(scope="module")
def weights(base: Path) -> dict[str, torch.Tensor]:
    """What an uninterrupted run that streams comes to."""
    task = tiny_task(base, "whole", **WINDOW)
    assert isinstance(task.train.chunks, Stream)
    assert len(task.train.epoch(seed=5, epoch=1, batch_dialogues=7).order.windows) > 2
    fit(task, Listener())
    return last_weights(task)


def last_weights(task: Task) -> dict[str, torch.Tensor]:
    step = EPOCHS * len(task.train.epoch(seed=5, epoch=1, batch_dialogues=7))
    return checkpoint.load_weights(checkpoint.checkpoint_uri(task.folder.checkpoints, step))


def test_streaming_changes_nothing_but_the_order(base: Path, weights: dict[str, torch.Tensor]) -> None:
    task = tiny_task(base, "held", **WINDOW)
    held = open_split(open_features(task.features.uri), "train", task.config.model.modalities)
    assert isinstance(held.chunks, MappedShards)
    fit(replace(task, train=replace(held, shards=task.train.shards)), Listener())  # the same order
    found = last_weights(task)
    assert all(torch.equal(found[name], weights[name]) for name in weights)
    assert found.keys() == weights.keys()


@pytest.mark.parametrize("killed_after", [1, 4])
def test_resumed_within_an_epoch_equals_uninterrupted(
    base: Path, weights: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch, killed_after: int
) -> None:
    taken: list[int] = []

    def dying(*given: Any, **more: Any) -> StepReport:
        if len(taken) == killed_after:
            raise KeyboardInterrupt("killed")
        taken.append(more["key"].step)
        return train_step(*given, **more)

    task = tiny_task(base, f"killed-{killed_after}", **WINDOW)
    with monkeypatch.context() as patch:
        patch.setattr(fitting, "train_step", dying)
        with pytest.raises(KeyboardInterrupt, match="killed"):
            fit(task, Listener())
    task, listener = tiny_task(base, f"killed-{killed_after}", **WINDOW), Listener()
    assert checkpoint.latest_step(task.folder.checkpoints) == killed_after
    result = fit(task, listener)
    assert listener.epochs == list(range(1 + killed_after // 3, EPOCHS + 1))
    assert storage.exists(storage.join(task.uri, "result.json"))
    assert result.history[-1].step == 3 * EPOCHS
    found = last_weights(task)
    assert all(torch.equal(found[name], weights[name]) for name in weights)
