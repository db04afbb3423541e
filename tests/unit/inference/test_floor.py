"""The linear floor: its scores against planted strengths, its choice of L2, and what it must ignore."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from ada2i.cli import app
from ada2i.evaluation.metrics import confusion_matrix, weighted_f1
from ada2i.importers.demo import write_demo_corpus
from ada2i.inference.floor import _solve, best_floor, fit_floor
from ada2i.records import UNLABELLED
from tests.unit.training.small import tiny_task


def test_it_beats_the_majority_and_all_modalities_beat_the_weakest(tmp_path: Path) -> None:
    task = tiny_task(tmp_path, "floor")
    modalities = task.config.model.modalities
    scores = {
        chosen: fit_floor(task.train, task.dev, chosen, classes=6).dev_weighted_f1
        for chosen in [*((m,) for m in modalities), modalities]
    }
    majority = task.dev.class_counts[int(task.train.class_counts.argmax())] / task.dev.lengths.sum()
    assert scores["text",] > majority
    assert scores[modalities] > min(scores[m,] for m in modalities)


def test_its_dev_score_is_that_of_its_predictions(tmp_path: Path) -> None:
    task = tiny_task(tmp_path, "dev")
    floor = fit_floor(task.train, task.dev, ("text",), classes=6)
    labels, chances = floor.predict(task.dev)
    assert len(labels) == task.dev.lengths.sum()  # every utterance, also without a vector
    assert chances.sum(axis=1) == pytest.approx(1.0, abs=1e-5)
    found = confusion_matrix(labels, chances.argmax(axis=1), 6)
    assert float(weighted_f1(found)) == pytest.approx(floor.dev_weighted_f1)
    assert floor.utterances == task.train.lengths.sum()


def test_the_solution_minimises_its_loss() -> None:
    draw = torch.Generator().manual_seed(0)
    inputs = torch.cat([torch.randn(200, 6, generator=draw), torch.ones(200, 1)], dim=1)
    labels = (inputs @ torch.randn(7, 3, generator=draw) + torch.randn(200, 3, generator=draw)).argmax(dim=1)
    weights = _solve(inputs, labels, torch.zeros(7, 3), 0.1).requires_grad_()
    loss = torch.nn.functional.cross_entropy(inputs @ weights, labels) + 0.05 * weights[:-1].square().sum()
    (gradient,) = torch.autograd.grad(loss, weights)
    assert gradient.norm() < 1e-3  # convex: no gradient, no better weights


def test_unlabelled_utterances_do_not_count(tmp_path: Path) -> None:
    task = tiny_task(tmp_path, "context")
    shard = task.train.chunks[0]
    labels = shard.labels.copy()
    labels[::2] = UNLABELLED
    object.__setattr__(shard, "labels", labels)
    floor = fit_floor(task.train, task.dev, ("text",), classes=6)
    assert floor.utterances == task.train.lengths.sum() - (len(labels) + 1) // 2


def test_the_command_prints_what_it_measures(tmp_path: Path) -> None:
    features = write_demo_corpus((tmp_path / "store").as_uri(), dialogues=26)
    root = str(tmp_path / "store")
    found = CliRunner().invoke(app, ["baseline", features, "--json", "--root", root])
    assert found.exit_code == 0, found.output
    rows = json.loads(found.stdout)
    assert [row["name"] for row in rows][-1] == "linear on text + audio + visual"
    assert all(row["interval"]["low"] <= row["weighted_f1"] <= row["interval"]["high"] for row in rows)
    table = CliRunner().invoke(app, ["baseline", features, "--modalities", "t", "--root", root])
    assert "linear on text" in table.stdout
    assert "audio" not in table.stdout


def test_first_dialogues_without_labels_leave_the_labelled_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = tiny_task(tmp_path, "late")
    shard = task.train.chunks[0]
    labels = shard.labels.copy()
    labels[: int(task.train.lengths[:4].sum())] = UNLABELLED
    object.__setattr__(shard, "labels", labels)
    monkeypatch.setattr("ada2i.inference.floor._CELLS", 40_000)
    monkeypatch.setattr("ada2i.inference.floor._ROWS", 8)  # a dialogue at a time
    floor = fit_floor(task.train, task.dev, ("text",), classes=6)
    assert 0 < floor.utterances < (labels != UNLABELLED).sum()


def test_the_best_on_dev_is_the_floor(tmp_path: Path) -> None:
    task = tiny_task(tmp_path, "best")
    modalities = task.config.model.modalities
    alone = [fit_floor(task.train, task.dev, (m,), classes=6).dev_weighted_f1 for m in modalities]
    floor = best_floor(task.train, task.dev, modalities, classes=6)
    assert floor.dev_weighted_f1 >= max(alone)
