"""One step against the same step written out by hand."""

import copy
import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from ada2i.balance.ada2i import Ada2IBalancer
from ada2i.balance.base import Balancer, StepScales
from ada2i.balance.none import NoBalancer
from ada2i.batch import DialogueBatch, Layout
from ada2i.config import Ada2IBalance, LossConfig, NoBalance
from ada2i.errors import DivergenceError
from ada2i.model.ada2i import Ada2I, Prediction
from ada2i.training.status import StepKey
from ada2i.training.step import LOSSES, StepReport, train_step
from ada2i.training.update import encoder_gradients, make_optimizer
from tests.unit.model.batches import CLASSES, MASKED, build, make_batch

LENGTHS = (3, 1, 6)
KEY = StepKey(seed=3, step=5)
FREE = NoBalancer(NoBalance())


def ada2i_balancer(**config: Any) -> Balancer:
    return Ada2IBalancer(Ada2IBalance.model_validate({"alpha": 0.4, **config}))


def adam(model: Ada2I) -> torch.optim.Adam:
    return make_optimizer(model, learning_rate=0.01, weight_decay=1e-3)


def step(
    model: Ada2I, *, clip_norm: float = 2.0, balancer: Balancer = FREE, key: StepKey = KEY, seed: int = 0
) -> StepReport:
    return train_step(model, [make_batch(LENGTHS, seed)], adam(model), key=key, clip_norm=clip_norm, balancer=balancer)


def weights(model: Ada2I) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def coefficients(model: Ada2I, batch: DialogueBatch, alpha: float) -> list[float]:
    """k_m, utterance by utterance."""
    with torch.no_grad():
        alone = model(batch).unimodal_logits.tolist()
    scores = []
    for rows in alone:
        odds = [[math.exp(x) for x in row] for row in rows]
        scores.append(sum(row[label] / sum(row) for row, label in zip(odds, batch.labels.tolist(), strict=True)))
    ratios = [score / min(scores) for score in scores]
    return [1 - math.tanh(alpha * ratio) if ratio > 1 else 1.0 for ratio in ratios]


@pytest.mark.parametrize("padding", [True, False])
@pytest.mark.parametrize("clip_norm", [0.05, 100.0])
@pytest.mark.parametrize("alpha", [None, 0.4])
def test_equals_the_step_by_hand(*, padding: bool, clip_norm: float, alpha: float | None) -> None:
    ours = build({} if padding else MASKED).train()
    twin = copy.deepcopy(ours)
    batch, optimizer = make_batch(LENGTHS), torch.optim.Adam(twin.parameters(), lr=0.01, weight_decay=1e-3)
    k = coefficients(twin, batch, alpha) if alpha is not None else [1.0] * 3

    prediction = twin(batch)
    likelihood = prediction.logits.log_softmax(-1)[range(10), batch.labels].mean()
    gap = prediction.mapping_gap.sum() / (18 if padding else 10)
    (gap - likelihood).backward()
    norm = math.sqrt(sum(p.grad.pow(2).sum().item() for p in twin.parameters() if p.grad is not None))
    for name, parameter in twin.named_parameters():
        assert parameter.grad is not None
        parameter.grad *= min(1.0, clip_norm / (norm + 1e-6))
        if name.startswith("encoders."):
            parameter.grad *= k[twin.modalities.index(name.split(".")[1])]
    optimizer.step()

    balancer = FREE if alpha is None else ada2i_balancer(alpha=alpha, noise=False)
    report = step(ours, clip_norm=clip_norm, balancer=balancer)
    for name, parameter in ours.named_parameters():
        other = twin.get_parameter(name)
        torch.testing.assert_close(parameter.grad, other.grad, atol=1e-8, rtol=1e-4)
        torch.testing.assert_close(parameter.detach(), other.detach(), atol=2e-6, rtol=0)
    found = report.metrics
    assert found["gradient_norm"].item() == pytest.approx(norm, rel=1e-5)
    losses = [found[name].item() for name in LOSSES]
    assert losses == pytest.approx([-likelihood.item(), -likelihood.item(), gap.item()], rel=1e-5)
    assert found["coefficient"].tolist() == pytest.approx(k, rel=1e-5)
    assert sum(x**2 for x in found["encoder_gradient_norm"].tolist()) < found["gradient_norm"].item() ** 2


def test_noise_reaches_encoders_only() -> None:
    plain, noisy = build(), build()
    step(plain, balancer=ada2i_balancer(noise=False))
    step(noisy, balancer=ada2i_balancer(noise=True))
    for name, parameter in noisy.named_parameters():
        other = plain.get_parameter(name).grad
        assert parameter.grad is not None
        assert other is not None
        assert torch.equal(parameter.grad, other) != name.startswith("encoders."), name


def test_a_step_is_a_function_of_its_key() -> None:
    dropout = {"model.encoder.dropout": 0.5, "model.afw.dropout": 0.5}
    first, same, other = build(dropout), build(dropout), build(dropout)
    balancer = ada2i_balancer()
    step(first, balancer=balancer)
    torch.manual_seed(1234)
    step(same, balancer=balancer)
    step(other, balancer=balancer, key=StepKey(seed=3, step=6))
    assert all(torch.equal(x, weights(same)[name]) for name, x in weights(first).items())
    assert not all(torch.equal(x, weights(other)[name]) for name, x in weights(first).items())


def test_encoder_gradients_are_named_as_parameters_are() -> None:
    model = build()
    step(model)
    parameters = dict(model.named_parameters())
    for modality in model.modalities:
        gradients = encoder_gradients(model, modality)
        assert gradients.keys() == {name for name in parameters if name.startswith(f"encoders.{modality}.")}
        assert all(gradient is parameters[name].grad for name, gradient in gradients.items())


def test_a_nan_feature_stops_before_the_optimizer_moves() -> None:
    model, batch = build(), make_batch(LENGTHS)
    batch.features["audio"][7, 2] = float("nan")
    before, optimizer = weights(model), adam(model)
    for acts_on in ("gradient", "update"):
        balancer = ada2i_balancer(acts_on=acts_on)
        report = train_step(model, [batch], optimizer, key=KEY, clip_norm=2.0, balancer=balancer)
        with pytest.raises(
            DivergenceError, match="The loss of rank 0 is not finite at step 5 of seed 3; the optimizer step"
        ):
            report.status.check()
        assert all(torch.equal(x, weights(model)[name]) for name, x in before.items())
    moments = [state["exp_avg"] for state in optimizer.state_dict()["state"].values()]
    assert all(not moment.any() for moment in moments)


def test_nothing_moves_after_a_step_that_was_not_finite() -> None:
    model, batch = build(), make_batch(LENGTHS)
    broken, optimizer = copy.deepcopy(batch), adam(model)
    broken.features["audio"][7, 2] = float("nan")
    before = weights(model)
    for given in (broken, batch):
        report = train_step(model, [given], optimizer, key=KEY, clip_norm=2.0, balancer=FREE)
    report.status.check()  # the second step itself was finite
    assert all(torch.equal(x, weights(model)[name]) for name, x in before.items())


def test_parts_of_a_batch_sum_to_the_batch() -> None:
    whole, parted = build(MASKED), build(MASKED)
    batch = make_batch(LENGTHS)
    parts = [part_of(batch, slice(0, 4), LENGTHS[:2]), part_of(batch, slice(4, 10), LENGTHS[2:])]
    balancer = ada2i_balancer()
    one = train_step(whole, [batch], adam(whole), key=KEY, clip_norm=2.0, balancer=balancer)
    two = train_step(parted, parts, adam(parted), key=KEY, clip_norm=2.0, balancer=balancer)
    for name, tensor in weights(whole).items():
        if not name.endswith("attention_in.bias"):  # its keys' third has no gradient but rounding
            torch.testing.assert_close(weights(parted)[name], tensor, atol=1e-6, rtol=0)
    assert one.metrics.keys() == two.metrics.keys()
    for name in one.metrics.keys() - {"gate_share"}:
        torch.testing.assert_close(one.metrics[name], two.metrics[name], rtol=1e-4, atol=1e-6)


def part_of(batch: DialogueBatch, rows: slice, lengths: tuple[int, ...]) -> DialogueBatch:
    return dataclasses.replace(
        batch,
        features={m: x[rows] for m, x in batch.features.items()},
        present={m: x[rows] for m, x in batch.present.items()},
        labels=batch.labels[rows],
        speakers=batch.speakers[rows],
        layout=Layout(lengths, batch.layout.padded_length),
    )


def test_a_gradient_alone_may_break() -> None:
    model = build()
    before = weights(model)
    bias = model.get_parameter("fusion.classifier.bias")
    bias.register_hook(lambda gradient: gradient * float("inf"))  # type: ignore[no-untyped-call]
    report = step(model)
    with pytest.raises(DivergenceError, match="The averaged gradient is not finite at step 5 of seed 3") as caught:
        report.status.check()
    assert caught.value.context == {"seed": 3, "step": 5, "ranks": []}
    assert all(torch.equal(x, weights(model)[name]) for name, x in before.items())


def test_modulated_updates_are_shorter_by_exactly_k() -> None:
    """Scaling Adam's gradient does next to nothing; scaling its step does what the equation says."""
    batch = make_batch((3, 4))
    balancer = ada2i_balancer(noise=False, acts_on="update")
    free, modulated = build(), build()
    start = {name: p.detach().clone() for name, p in free.named_parameters()}
    train_step(free, [batch], adam(free), key=KEY, clip_norm=2.0, balancer=FREE)
    report = train_step(modulated, [batch], adam(modulated), key=KEY, clip_norm=2.0, balancer=balancer)
    assert report.metrics["coefficient"].min() < 1
    after = dict(modulated.named_parameters())
    k = dict(zip(modulated.modalities, report.metrics["coefficient"].tolist(), strict=True))
    for name, parameter in free.named_parameters():
        part, modality, *_ = name.split(".")
        moved = (parameter.detach() - start[name]) * (k[modality] if part == "encoders" else 1.0)
        torch.testing.assert_close(after[name].detach() - start[name], moved, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("clip_norm", [2.0, 0.01])
@pytest.mark.parametrize("acts_on", ["gradient", "update"])
def test_noise_has_the_deviation_of_the_gradient_that_is_left(acts_on: str, clip_norm: float) -> None:
    """Clipped, and where modulation acts on it, modulated; after the update, as a step by such a gradient would be."""
    wide, rate = {"model.encoder.feedforward_dim": 64}, 0.01
    quiet, noisy = build(wide), build(wide)
    for network, noise in ((quiet, False), (noisy, True)):
        report = step(network, clip_norm=clip_norm, balancer=ada2i_balancer(noise=noise, acts_on=acts_on))
    assert report.metrics["coefficient"].min() < 1
    others = dict(noisy.named_parameters())
    for name, parameter in quiet.named_parameters():
        gradient, other = parameter.grad, others[name].grad
        assert gradient is not None
        assert other is not None
        added = other - gradient if acts_on == "gradient" else others[name].detach() - parameter.detach()
        if not name.startswith("encoders"):
            assert torch.equal(added, torch.zeros_like(added))
        elif parameter.numel() > 500:
            wanted = gradient.std().item() * (1.0 if acts_on == "gradient" else rate)
            assert added.std().item() == pytest.approx(wanted, rel=0.1)


def test_noise_has_a_floor_where_a_modality_stands_still() -> None:
    quiet, noisy = build(MASKED), build(MASKED)
    step(quiet, balancer=ada2i_balancer(alpha=50.0, noise=False))
    coefficient = step(noisy, balancer=ada2i_balancer(alpha=50.0, noise=True)).metrics["coefficient"]
    assert coefficient.min() == 0
    still = noisy.modalities[int(coefficient.argmin())]
    gradients = [p.grad.flatten() for p in noisy.encoders[still].parameters() if p.grad is not None]
    assert torch.cat(gradients).std().item() == pytest.approx(1e-8, rel=0.2)


def test_the_modal_loss_is_the_votes_cross_entropy() -> None:
    network, batch = build({"model.prediction": "mlp"}), make_batch((3, 4))
    terms = LossConfig(classification=0.5, modal=2.0, feature=0.25)
    fused = network.eval()(batch).fused.detach()
    report = train_step(network, [batch], adam(network), key=KEY, clip_norm=2.0, balancer=FREE, weights=terms)
    expected = -fused.log_softmax(-1)[range(7), batch.labels].mean().item()
    classification, modal, feature = (report.metrics[name].item() for name in LOSSES)
    assert modal == pytest.approx(expected, rel=1e-5)
    assert report.metrics["loss"].item() == pytest.approx(0.5 * classification + 2.0 * modal + 0.25 * feature, rel=1e-5)


class Proximity(NoBalancer):
    """A method of another kind: it has a loss of its own, a state, and scales that depend on it."""

    def __init__(self) -> None:
        super().__init__(NoBalance())
        self.seen = torch.zeros(())

    def statistics(self, prediction: Prediction, batch: DialogueBatch) -> dict[str, Tensor]:
        return {"hits": (prediction.logits.argmax(1) == batch.labels).sum().float(), "votes": prediction.votes.mean(1)}

    def extra_losses(
        self, prediction: Prediction, batch: DialogueBatch, totals: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        assert not totals  # this method needs none
        return {"spread": prediction.votes.square().sum() / batch.global_utterances}

    def scales(self, statistics: Mapping[str, Tensor]) -> StepScales:
        assert statistics["votes"].shape == (3, CLASSES)
        self.seen += statistics["hits"]
        return StepScales(update=torch.tensor([0.0, 1.0, 1.0]), metrics={"hits": self.seen})


def test_a_method_may_bring_losses_statistics_and_scales_of_its_own() -> None:
    plain, other = build(MASKED), build(MASKED)
    before = weights(other)
    free = step(plain)
    report = step(other, balancer=Proximity())
    assert {"spread", "hits"} <= report.metrics.keys()
    spread = report.metrics["loss"] - free.metrics["loss"]
    torch.testing.assert_close(report.metrics["spread"], spread, rtol=1e-3, atol=1e-5)
    for name, tensor in weights(other).items():
        assert torch.equal(tensor, before[name]) == name.startswith("encoders.text."), name
