"""Padded batches give the results of unpadded ones, and a captured step those of the step itself."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ada2i import fast
from ada2i.balance import make_balancer
from ada2i.batch import DialogueBatch
from ada2i.config import TrainConfig
from ada2i.fast import adam
from ada2i.fast.noise import MovingWindows, gaussian
from ada2i.model.build import build_model
from ada2i.presets import resolve
from ada2i.records import UNLABELLED
from ada2i.training.graphs import StepGraphs, can_capture
from ada2i.training.padding import pad_batch, padded_shape
from ada2i.training.status import StepKey
from ada2i.training.step import train_step
from ada2i.training.update import make_optimizer
from tests.unit.model.batches import CLASSES, MASKED, SMALL, WIDTHS, make_batch
from tests.unit.training.recorded import record

CONFIGS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "reference": ("reference", {**MASKED, "balance.noise": False}),
    "paper": ("paper", {"balance.noise": False}),
    "corrected": ("corrected", {"model.encoder.input_dropout": 0.0}),
    "context": ("corrected", {"model.encoder.kind": "context", "model.encoder.input_dropout": 0.0}),
    "causal": ("corrected", {"model.encoder.causal": True, "model.encoder.input_dropout": 0.0}),
    "ada2i": ("corrected", {"balance.method": "ada2i", "balance.start_epoch": 1, "model.encoder.input_dropout": 0.0}),
}
LENGTHS = [(5, 3, 7, 1), (2, 9, 4, 4), (6, 6, 1, 2), (3, 8)]


@pytest.fixture(autouse=True)
def _as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take the ways of a GPU: no CPU optimisations, and the optimizer's fused step."""
    fast.enable(False)
    monkeypatch.setattr(adam, "_plain_step", adam._fused_step)
    yield
    fast.enable(True)


def config(name: str, **more: Any) -> TrainConfig:
    preset, fields = CONFIGS[name]
    return resolve(preset=preset, settings="default", overrides={**SMALL, **fields, **more})


def incomplete(batch: DialogueBatch) -> DialogueBatch:
    """Return a batch with missing audio and a label less."""
    audio = batch.present["audio"].clone()
    audio[1::3] = False
    labels = batch.labels.clone()
    labels[2] = UNLABELLED
    features = {**batch.features, "audio": batch.features["audio"] * audio[:, None]}
    return replace(
        batch, features=features, present={**batch.present, "audio": audio}, labels=labels, labelled=len(labels) - 1
    )


class Training:
    """Takes steps, with graphs or without."""

    def __init__(self, chosen: TrainConfig, *, graphs: bool) -> None:
        torch.manual_seed(0)
        self.model = build_model(chosen, widths=WIDTHS, classes=CLASSES)
        self.optimizer = make_optimizer(self.model, learning_rate=0.01, weight_decay=1e-3)
        self.balancer = make_balancer(chosen)
        self.balancer.set_epoch(1)
        weights = torch.tensor([1.0, 0.5, 2.0, 1.0])
        self.fixed: dict[str, Any] = {"clip_norm": 0.5, "weights": chosen.loss, "class_weights": weights}
        self.graphs = None
        if graphs:
            self.graphs = StepGraphs(
                self.model, self.optimizer, self.balancer, batch_dialogues=4, capture=record, **self.fixed
            )

    def step(self, batch: DialogueBatch, number: int) -> dict[str, Tensor]:
        """Take a step at a rate of its own; return its metrics."""
        for group in self.optimizer.param_groups:
            group["lr"] = 0.01 / (1 + number)
        key = StepKey(3, number)
        if self.graphs is None:
            report = train_step(self.model, [batch], self.optimizer, key=key, balancer=self.balancer, **self.fixed)
        else:
            taken = self.graphs.step([batch], key, leaving=False)
            assert taken is not None
            report = taken
        assert report.status.finite
        return {name: value.clone() for name, value in report.metrics.items()}

    def weights(self) -> dict[str, Tensor]:
        """Return the model's weights, but not the keys' biases, whose gradients are rounding errors alone."""
        found = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        for name in [name for name in found if name.endswith("attention_in.bias")]:
            query, _, value = found[name].chunk(3)
            found[name] = torch.cat([query, value])
        return found


@pytest.mark.parametrize("name", CONFIGS)
def test_padding_changes_neither_metrics_nor_weights(name: str) -> None:
    plain, padded = Training(config(name), graphs=False), Training(config(name), graphs=False)
    for number, lengths in enumerate(LENGTHS):
        batch = incomplete(make_batch(lengths, seed=number))
        one = plain.step(batch, number)
        other = padded.step(pad_batch(batch, padded_shape(lengths, 4)), number)
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(padded.weights(), plain.weights(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_replayed_step_equals_the_step_itself(name: str) -> None:
    plain, replayed = Training(config(name), graphs=False), Training(config(name), graphs=True)
    for number, lengths in enumerate([*LENGTHS, *LENGTHS]):
        batch = incomplete(make_batch(lengths, seed=number))
        one, other = plain.step(batch, number), replayed.step(batch, number)
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(replayed.weights(), plain.weights(), rtol=1e-4, atol=1e-5)
    assert replayed.graphs is not None
    assert 0 < len(replayed.graphs.graphs) < len(LENGTHS)


def test_regression_is_padded_too() -> None:
    losses = []
    for pad in (False, True):
        taken = Training(config("corrected"), graphs=False)
        batch = make_batch((3, 5))
        batch = replace(batch, targets=torch.linspace(-1, 1, 8), targeted=8)
        torch.manual_seed(0)
        model = build_model(config("corrected", task="regression"), widths=WIDTHS, classes=3)
        taken.model, taken.fixed["class_weights"] = model, None
        taken.optimizer = make_optimizer(model, learning_rate=0.01, weight_decay=0.0)
        losses.append(taken.step(pad_batch(batch, padded_shape((3, 5), 4)) if pad else batch, 0)["loss"])
    torch.testing.assert_close(*losses)


def test_a_graph_that_differs_from_the_step_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    training = Training(config("corrected"), graphs=True)
    assert training.graphs is not None

    def wrong(run: Any) -> Any:
        outputs, replay = record(run)

        def again() -> None:
            replay()
            next(training.model.parameters()).data.add_(1e-3)

        return outputs, again

    training.graphs.capture = wrong
    before = training.weights()
    assert training.graphs.step([make_batch((3, 4))], StepKey(1, 0), leaving=False) is None
    assert "differs from the step itself" in caplog.text
    torch.testing.assert_close(training.weights(), before, rtol=0, atol=0)
    assert training.graphs.step([make_batch((3, 4))], StepKey(1, 1), leaving=False) is None


def test_a_step_that_is_not_finite_stops_the_optimizer_and_all_later_steps() -> None:
    training = Training(config("corrected"), graphs=True)
    training.step(make_batch((3, 4)), 0)
    before, batch = training.weights(), make_batch((3, 4))
    broken = replace(batch, features={**batch.features, "text": batch.features["text"] * float("inf")})
    assert training.graphs is not None
    for number, given_batch in ((1, broken), (2, batch)):
        report = training.graphs.step([given_batch], StepKey(3, number), leaving=number == 1)
        assert report is not None
        assert report.status.leaving == (number == 1)
        torch.testing.assert_close(training.weights(), before, rtol=0, atol=0)


def test_windows_that_move_on_the_device_are_those_of_the_host() -> None:
    fast.enable(True)
    small, large = torch.zeros(7, 3), torch.zeros(3, 1 << 20)
    windows = MovingWindows({"small": small.numel(), "large": large.numel()}, small.device)
    for key in (5, 6):
        windows.move({"small": key, "large": key + 1})
        for target, name, own in ((small, "small", key), (large, "large", key + 1)):
            wanted = [(start, numbers * sign) for start, numbers, sign in gaussian(target, own)]
            found = [(start, numbers * sign) for start, numbers, sign in windows(target, name)]
            assert [start for start, _ in found] == [start for start, _ in wanted]
            assert all(torch.equal(one, other) for (_, one), (_, other) in zip(found, wanted, strict=True))


@pytest.mark.parametrize(
    ("fields", "possible"),
    [
        (MASKED, True),
        ({}, False),  # attends to padding
        ({**MASKED, "model.encoder.kind": "lstm"}, False),
        ({**MASKED, "balance.method": "ogm-ge"}, False),
        ({**MASKED, "model.fusion": "package.module:Own"}, False),
    ],
)
def test_only_steps_of_tensors_are_captured(fields: Mapping[str, Any], possible: bool) -> None:
    assert can_capture(resolve(preset="reference", settings="default", overrides=fields)) == possible


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(1, 256), min_size=1, max_size=40), st.integers(0, 30))
def test_shapes_are_few_and_hold_every_batch(lengths: list[int], more: int) -> None:
    shape = padded_shape(lengths, len(lengths) + more)
    batch = pad_batch(make_batch(lengths), shape)
    assert (len(batch.labels), len(batch.layout.lengths)) == (shape.rows, shape.dialogues)
    assert batch.layout.lengths[: len(lengths)] == tuple(lengths)
    assert batch.layout.lengths[-1] == 1  # so the grid always has empty slots
    assert shape.length < max(lengths) + 16
    assert not batch.layout.is_full
