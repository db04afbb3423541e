"""The update against its parts by hand; the step's own test holds the whole."""

import pytest
import torch

from ada2i.training.update import gradient_norms, make_optimizer
from tests.unit.model.batches import build


def test_groups_are_the_encoders_and_the_rest() -> None:
    model = build()
    optimizer = make_optimizer(model, learning_rate=0.1, weight_decay=0.0)
    *encoders, rest = optimizer.param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    for modality, group in zip(model.modalities, encoders, strict=True):
        assert all(names[id(p)].startswith(f"encoders.{modality}.") for p in group["params"])
    found = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
    assert sorted(found) == sorted(names.values())
    assert not any(names[id(p)].startswith("encoders.") for p in rest["params"])


def test_norms_are_those_of_torch() -> None:
    model = build()
    optimizer = make_optimizer(model, learning_rate=0.1, weight_decay=0.0)
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, 0.1 * number) if number % 5 else None
    norms = gradient_norms(optimizer)
    wanted = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    assert norms.total.item() == pytest.approx(wanted.item(), rel=1e-5)
    for modality, found in zip(model.modalities, norms.by_encoder, strict=True):
        gradients = [p.grad for p in model.encoders[modality].parameters() if p.grad is not None]
        assert found.item() == pytest.approx(torch.nn.utils.get_total_norm(gradients).item(), rel=1e-5)
