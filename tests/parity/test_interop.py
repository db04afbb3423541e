"""Weights under the released code's names and back."""

from typing import Any

import pytest
import torch
from torch import Tensor

from ada2i.errors import DataError
from ada2i.model.ada2i import Ada2I
from tests.parity.interop import from_released, to_released
from tests.unit.model.batches import build

CASES: dict[str, dict[str, Any]] = {
    "full": {},
    "lstm": {"model.encoder.kind": "lstm"},
    "without AFW": {"ablations.no_afw": True},
    "visual, text": {"model.modalities": ["visual", "text"]},
    "one AFW layer, three encoder layers": {"model.afw.layers": 1, "model.encoder.layers": 3},
}


def shapes(model: Ada2I) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in model.named_parameters()}


def released(model: Ada2I) -> dict[str, Tensor]:
    return to_released(dict(model.state_dict()), model.modalities)


@pytest.mark.parametrize("case", CASES)
def test_round_trip_to_the_last_bit(case: str) -> None:
    model, other = build(CASES[case], seed=1), build(CASES[case], seed=2)
    other.load_state_dict(from_released(released(model), shapes(model), model.modalities))
    assert all(torch.equal(x, other.state_dict()[name]) for name, x in model.state_dict().items())


@pytest.mark.parametrize("case", CASES)
def test_no_number_is_lost(case: str) -> None:
    model = build(CASES[case])
    tensors = released(model)
    assert sum(x.numel() for x in tensors.values()) == sum(p.numel() for p in model.parameters())
    assert all(name.startswith("net.") for name in tensors)


def test_names_and_shapes_of_the_released_code() -> None:
    tensors = released(build({"model.modalities": ["audio", "text"]}))
    found = {name: tuple(x.shape) for name, x in tensors.items()}
    for name, shape in {
        "net.encoder.a.transformer_encoder.layers.0.self_attn.in_proj_weight": (36, 12),
        "net.encoder.t.transformer_encoder.layers.1.self_attn.in_proj_bias": (30,),
        "net.encoder.t.transformer_encoder.layers.1.norm2.weight": (10,),
        "net.encoder.a.lin_out.weight": (6, 12),
        "net.mmt.layers.1.attention.trans_k2.1.lin.weight": (3, 6),
        "net.mmt.layers.0.attention.lin_att.0.lin.weight": (6, 9),
        "net.mmt.layers.0.wmn.fc.1.bias": (6,),
        "net.fc_out.weight": (4, 12),
    }.items():
        assert found[name] == shape


def test_a_missing_tensor_is_named() -> None:
    model = build()
    tensors = released(model)
    del tensors["net.fc_out.bias"]
    with pytest.raises(DataError, match=r"missing \['net\.fc_out\.bias'\], left over \[\]"):
        from_released(tensors, shapes(model), model.modalities)


def test_a_tensor_too_many_is_named() -> None:
    model = build()
    tensors = released(model) | {"net.extra": torch.zeros(1)}
    with pytest.raises(DataError, match=r"missing \[\], left over \['net\.extra'\]"):
        from_released(tensors, shapes(model), model.modalities)


def test_a_wrong_shape_is_named() -> None:
    model = build()
    tensors = released(model) | {"net.fc_out.bias": torch.zeros(9)}
    with pytest.raises(DataError, match=r"fusion\.classifier\.bias must have shape \(4,\), .* has \(9,\)"):
        from_released(tensors, shapes(model), model.modalities)
