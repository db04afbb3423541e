"""Adaptive feature weighting against its equations, written out number by number."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from ada2i.batch import Layout
from ada2i.modalities import MODALITIES, Modality
from ada2i.model.afw import AdaptiveFeatureWeighting, AfwLayer, DialogueAverage
from tests.unit.model.batches import afw_layer, random_rows, weigh

HIDDEN, RANK, BETA = 5, 3, 0.3
LENGTHS = (2, 4, 1)


def module(modalities: tuple[Modality, ...] = MODALITIES, dropout: float = 0.0) -> AdaptiveFeatureWeighting:
    torch.manual_seed(0)
    layers = [
        afw_layer(modalities=modalities, hidden_dim=HIDDEN, rank=RANK, beta=BETA, dropout=dropout) for _ in range(2)
    ]
    afw = AdaptiveFeatureWeighting(layers, DialogueAverage)
    for parameter in afw.parameters():  # as initialised the attention is nearly dead, and would hide mistakes
        torch.nn.init.normal_(parameter, std=0.4)
    return afw.double()  # separates a wrong equation from rounding


def inputs(modalities: Sequence[Modality], rows: int) -> dict[Modality, Tensor]:
    return {m: random_rows(rows, HIDDEN, seed=i).double() for i, m in enumerate(modalities)}


def naive_theta(layer: AfwLayer, modality: Modality, z: Tensor) -> Tensor:
    """G_Q * G_K of one utterance: Theta[i, j] = q1[i] q2[j] k1[i] k2[j]."""
    weight = layer.get_parameter(f"factors.{modality}.weight")
    bias = layer.get_parameter(f"factors.{modality}.bias")
    maps = [weight[n * RANK : (n + 1) * RANK] @ z + bias[n * RANK : (n + 1) * RANK] for n in range(4)]
    q1, q2, k1, k2 = maps
    theta = torch.empty(RANK, RANK, dtype=torch.float64)
    for i in range(RANK):
        for j in range(RANK):
            theta[i, j] = q1[i] * q2[j] * k1[i] * k2[j]
    return theta


def naive_linear(layer: AfwLayer, name: str, x: Tensor) -> Tensor:
    return layer.get_parameter(f"{name}.weight") @ x + layer.get_parameter(f"{name}.bias")


def naive_layer(
    layer: AfwLayer, features: dict[Modality, Tensor], lengths: Sequence[int]
) -> tuple[dict[Modality, Tensor], Tensor]:
    """The equations, dialogue by dialogue and utterance by utterance."""
    weighted = {m: torch.empty_like(z) for m, z in features.items()}
    gaps = torch.zeros(sum(lengths), dtype=torch.float64)
    start = 0
    for length in lengths:
        rows = range(start, start + length)
        thetas = {m: {n: naive_theta(layer, m, z[n]) for n in rows} for m, z in features.items()}
        means = {m: torch.stack(list(theta.values())).sum(0) / length for m, theta in thetas.items()}
        for n in rows:
            for m, z in features.items():
                contracted = thetas[m][n]
                for other in features:
                    if other != m:
                        contracted = torch.einsum("ik,kj->ij", contracted, means[other])
                attention = naive_linear(layer, f"attention.{m}", contracted.reshape(-1))
                weighted[m][n] = attention * z[n] + BETA * z[n]
                gap = (naive_linear(layer, f"mapping.{m}", z[n]) - weighted[m][n]).abs().mean()
                gaps[n] += gap / len(features)
        start += length
    return weighted, gaps


@pytest.mark.parametrize("modalities", [("text", "audio", "visual"), ("visual", "text"), ("audio",)])
@pytest.mark.parametrize("lengths", [LENGTHS, (4, 4, 4)])
def test_equals_the_equations(modalities: tuple[Modality, ...], lengths: tuple[int, ...]) -> None:
    afw = module(modalities)
    features = inputs(modalities, sum(lengths))
    weighted, gap, _ = weigh(afw, features, Layout(lengths, max(lengths)))
    wanted, total = features, torch.zeros(sum(lengths), dtype=torch.float64)
    for layer in afw.layers:
        assert isinstance(layer, AfwLayer)
        wanted, gaps = naive_layer(layer, wanted, lengths)
        total = total + gaps
    for m in modalities:
        torch.testing.assert_close(weighted[m], wanted[m], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gap, total, rtol=1e-9, atol=1e-9)


def test_has_the_gradients_of_the_equations() -> None:
    afw = module()
    features = inputs(MODALITIES, 7)
    weighted, gap, _ = weigh(afw, features, Layout(LENGTHS, 4))
    assert gap is not None
    (torch.stack([x.square().sum() for x in weighted.values()]).sum() + gap.sum()).backward()  # type: ignore[no-untyped-call]
    found = {name: p.grad.clone() for name, p in afw.named_parameters() if p.grad is not None}
    afw.zero_grad()
    wanted, total = features, torch.zeros(7, dtype=torch.float64)
    for layer in afw.layers:
        assert isinstance(layer, AfwLayer)
        wanted, gaps = naive_layer(layer, wanted, LENGTHS)
        total = total + gaps
    (torch.stack([x.square().sum() for x in wanted.values()]).sum() + total.sum()).backward()  # type: ignore[no-untyped-call]
    assert found.keys() == dict(afw.named_parameters()).keys()
    for name, parameter in afw.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-7, atol=1e-9)


def test_matrices_are_contracted_in_the_order_of_the_modalities() -> None:
    features = inputs(MODALITIES, 7)
    layout = Layout(LENGTHS, 4)
    forwards, _, _ = weigh(module(), features, layout)
    other = module(MODALITIES[::-1])
    other.load_state_dict(module().state_dict())
    backwards, _, _ = weigh(other, {m: features[m] for m in reversed(MODALITIES)}, layout)
    assert not torch.allclose(forwards["text"], backwards["text"], rtol=1e-3)


def test_a_dialogue_does_not_depend_on_its_mates() -> None:
    afw = module().eval()
    features = inputs(MODALITIES, 7)
    together, _, _ = weigh(afw, features, Layout(LENGTHS, 4))
    alone, _, _ = weigh(afw, {m: x[2:6] for m, x in features.items()}, Layout((4,), 4))
    for m in MODALITIES:
        torch.testing.assert_close(together[m][2:6], alone[m], rtol=1e-9, atol=1e-9)


def test_no_mapping_gap_in_eval_mode() -> None:
    assert weigh(module().eval(), inputs(MODALITIES, 7), Layout(LENGTHS, 4)).mapping_gap is None


def test_dropout_acts_on_outputs_in_training_only() -> None:
    features, layout = inputs(MODALITIES, 7), Layout(LENGTHS, 4)
    weighted, _, _ = weigh(module(dropout=0.5), features, layout)
    assert (weighted["text"] == 0).any()
    evaluated, _, _ = weigh(module(dropout=0.5).eval(), features, layout)
    plain, _, _ = weigh(module().eval(), features, layout)
    assert torch.equal(evaluated["text"], plain["text"])


def test_dialogue_average_is_each_dialogues_own() -> None:
    rows = torch.tensor([[1.0, 0.0], [3.0, 2.0], [10.0, 10.0], [20.0, 10.0], [30.0, 10.0], [40.0, 10.0], [-5.0, 7.0]])
    wanted = torch.tensor([[2.0, 1.0]] * 2 + [[25.0, 10.0]] * 4 + [[-5.0, 7.0]])
    thetas = torch.stack([rows[:, :, None].expand(-1, -1, 2)] * 3)
    average = DialogueAverage(Layout(LENGTHS, 9), None, torch.float32)
    assert torch.equal(average(thetas), torch.stack([wanted[:, :, None].expand(-1, -1, 2)] * 3))
