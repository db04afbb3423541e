"""Encoders in bfloat16 against float32: the empty rows that even out the batch's size leave no trace."""

from collections.abc import Mapping

import pytest
import torch

from tests.unit.model.batches import MASKED, build, make_batch

CONTEXT = {
    **MASKED,
    "model.encoder.kind": "context",
    "model.encoder.positions": True,
    "model.encoder.speakers": True,
    "model.mask_missing": True,
}
ENCODERS: list[Mapping[str, object]] = [
    {},
    MASKED,
    {**MASKED, "model.encoder.causal": True},
    CONTEXT,
    {**MASKED, "model.encoder.dropout": 1e-6},  # too rare for a draw, but not for its path
    {**MASKED, "model.encoder.kind": "lstm"},
]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_scores_and_gradients_are_near_those_of_float32(encoder: Mapping[str, object]) -> None:
    batch = make_batch((9, 1, 5))
    batch.present["audio"][3:6] = False
    outputs, gradients = [], []
    for precision in ("float32", "bfloat16"):
        model = build({**encoder, "model.precision": precision})
        prediction = model(batch)
        prediction.logits.square().sum().backward()
        outputs.append(prediction.logits.detach())
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert outputs[1].dtype == torch.float32
    torch.testing.assert_close(outputs[1], outputs[0], atol=0.02, rtol=0.02)
    assert torch.cosine_similarity(gradients[0], gradients[1], dim=0) > 0.99


def test_the_size_of_the_batch_changes_rounding_only() -> None:
    model = build({**MASKED, "model.precision": "bfloat16"}).eval()
    alone, larger = make_batch((9, 1, 5)), make_batch((9, 1, 5, 30))
    for batch in (alone, larger):  # the same first rows
        for features in batch.features.values():
            features[:15] = torch.linspace(-1, 1, features[:15].numel()).view(15, -1)
    torch.testing.assert_close(model(larger).logits[:15], model(alone).logits, atol=0.01, rtol=0.01)
