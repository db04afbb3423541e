"""A split on a device has the same batches, bit by bit; here the device is the CPU."""

import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ada2i.batch import DialogueBatch
from ada2i.data.manifest import FeatureSet
from ada2i.loader.chunks import MappedShards
from ada2i.loader.resident import Resident, on_device
from ada2i.loader.split_data import SplitData, open_split
from ada2i.records import UNLABELLED
from ada2i.training.fit import fit
from tests.unit.data.sets import MODALITIES, cache, write_set
from tests.unit.training.small import Listener, tiny_task

__all__ = ["cache"]  # a fixture of all tests here

CPU = torch.device("cpu")
DIALOGUES = [("train", "t0", 3), ("train", "t1", 1), ("train", "t2", 5), ("train", "t3", 2), ("dev", "v0", 2)]


@pytest.fixture
def features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureSet:
    """A set whose train split has several shards."""
    return write_set(tmp_path / "root", DIALOGUES, monkeypatch)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one.nan_to_num(7.0), other.nan_to_num(7.0))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


def differing(one: DialogueBatch, other: DialogueBatch) -> list[str]:
    return [each.name for each in fields(one) if not same(getattr(one, each.name), getattr(other, each.name))]


def both(split: SplitData) -> tuple[SplitData, Resident]:
    near = on_device(split, CPU, limit=math.inf)
    assert isinstance(near, Resident)
    return split, near


@pytest.mark.parametrize(("own", "of"), [([2, 0], [2, 0, 1]), ([3], [3]), ([], [1, 3]), ([0, 1, 2, 3], [0, 1, 2, 3])])
def test_batches_are_the_same_to_the_last_bit(features: FeatureSet, own: list[int], of: list[int]) -> None:
    plain, near = both(open_split(features, "train", MODALITIES))
    assert differing(plain.batch(own, of), near.batch(own, of)) == []
    assert plain.batch(own, of).layout.speakers == near.batch(own, of).layout.speakers


def test_counts_of_labels_and_targets_are_the_same(features: FeatureSet) -> None:
    split = open_split(features, "train", MODALITIES)
    assert isinstance(split.chunks, MappedShards)
    chunks = []
    for chunk in split.chunks.shards:
        labels, targets = chunk.labels.copy(), np.arange(len(chunk.labels), dtype=np.float32)
        labels[::2], targets[1::3] = UNLABELLED, np.nan
        chunks.append(replace(chunk, labels=labels, targets=targets))
    counts = np.maximum(split.class_counts - 1, 0)
    plain, near = both(replace(split, chunks=MappedShards(chunks), class_counts=counts, targets=True))
    found = near.batch([2, 1], [2, 1, 0])
    assert differing(plain.batch([2, 1], [2, 1, 0]), found) == []
    assert found.labelled is not None
    assert found.targeted is not None
    assert 0 < found.labelled < found.global_utterances > found.targeted > 0


def test_a_training_is_the_same_to_the_last_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = fit(tiny_task(tmp_path, "plain"), Listener())
    monkeypatch.setattr("ada2i.training.task.memory_of", lambda _: 10**9)
    task = tiny_task(tmp_path, "near")
    assert isinstance(task.near_train, Resident)
    assert isinstance(task.near_dev, Resident)
    near = fit(task, Listener())
    assert [(record.loss, record.dev_loss) for record in near.history] == [
        (record.loss, record.dev_loss) for record in plain.history
    ]


def test_what_does_not_fit_or_streams_stays(features: FeatureSet, tmp_path: Path) -> None:
    split = open_split(features, "train", MODALITIES)
    assert on_device(split, CPU, limit=100) is split
    streaming = open_split(features, "train", MODALITIES, shuffle_gib=1e-9)
    assert on_device(streaming, CPU, limit=math.inf) is streaming
    task = tiny_task(tmp_path, "run", resources__gpu_data_share=0.0)
    assert task.near_train is task.train
