"""Norms and clipping against torch's own."""

import pytest
import torch

from ada2i.training.clipping import clip_factor, gradient_norms
from ada2i.training.update import make_optimizer
from tests.unit.model.batches import build


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


@pytest.mark.parametrize("clip_norm", [0.5, 1e6])
def test_the_factor_is_that_of_torch(clip_norm: float) -> None:
    model = build()
    optimizer = make_optimizer(model, learning_rate=0.1, weight_decay=0.0)
    parameters = list(model.parameters())
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 0.1)
    factor = clip_factor(gradient_norms(optimizer), clip_norm)
    torch.nn.utils.clip_grad_norm_(parameters, clip_norm)
    for parameter in parameters:
        torch.testing.assert_close(parameter.grad, torch.full_like(parameter, 0.1) * factor)
