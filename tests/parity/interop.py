"""Converts weights to and from the released code's names, as in published checkpoints and golden vectors.

The released code has AFW's four maps separately and numbers modalities by position; here they are one matrix, by name.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ada2i.errors import DataError
from ada2i.modalities import LETTERS, Modality

_FACTORS = ("q1", "q2", "k1", "k2")
_LAYER = {
    "attention_in.weight": "self_attn.in_proj_weight",
    "attention_in.bias": "self_attn.in_proj_bias",
    "attention_out.": "self_attn.out_proj.",
    "expand.": "linear1.",
    "contract.": "linear2.",
    "attention_norm.": "norm1.",
    "feedforward_norm.": "norm2.",
}


def released_names(name: str, modalities: tuple[Modality, ...]) -> tuple[str, ...]:
    """Return the released names whose tensors, stacked along the first axis, form this model's parameter ``name``."""
    part, *rest = name.split(".")
    if part == "encoders":
        return (_encoder_name(rest),)
    if part == "fusion":
        return (f"net.fc_out.{rest[-1]}",)
    _, layer, kind, modality, leaf = rest
    index = modalities.index(modality)
    home = f"net.mmt.layers.{layer}"
    if kind == "factors":
        return tuple(f"{home}.attention.trans_{factor}.{index}.lin.{leaf}" for factor in _FACTORS)
    if kind == "attention":
        return (f"{home}.attention.lin_att.{index}.lin.{leaf}",)
    return (f"{home}.wmn.fc.{index}.{leaf}",)


def from_released(
    released: Mapping[str, Tensor], names: Mapping[str, torch.Size], modalities: tuple[Modality, ...]
) -> dict[str, Tensor]:
    """Return a state dict for this model from tensors under the released names.

    Args:
        released: Tensors by released name; unknown names are refused.
        names: This model's parameter names with their shapes.
        modalities: The model's modalities in order.

    Raises:
        DataError: A tensor is missing, left over or of another shape.
    """
    wanted = {name: released_names(name, modalities) for name in names}
    used = {old for olds in wanted.values() for old in olds}
    if used != released.keys():
        raise DataError(
            f"A released checkpoint of this shape must hold exactly {len(used)} tensors; "
            f"missing {sorted(used - released.keys())[:3]}, left over {sorted(released.keys() - used)[:3]}. "
            "Check modalities, layers and ablations."
        )
    state = {name: torch.cat([released[old] for old in olds]) for name, olds in wanted.items()}
    if wrong := [name for name, tensor in state.items() if tensor.shape != names[name]]:
        raise DataError(
            f"{wrong[0]} must have shape {tuple(names[wrong[0]])}, but the checkpoint has "
            f"{tuple(state[wrong[0]].shape)}. Check hidden_dim, rank, feature widths and classes."
        )
    return state


def to_released(state: Mapping[str, Tensor], modalities: tuple[Modality, ...]) -> dict[str, Tensor]:
    """Return tensors under the released names: the inverse of ``from_released``."""
    released: dict[str, Tensor] = {}
    for name, tensor in state.items():
        olds = released_names(name, modalities)
        released.update(zip(olds, tensor.chunk(len(olds)), strict=True))
    return released


def _encoder_name(rest: list[str]) -> str:
    modality, *path = rest
    letter = next(letter for letter, name in LETTERS.items() if name == modality)
    home = f"net.encoder.{letter}"
    if path[0] == "project":
        return f"{home}.lin_out.{path[1]}"
    if path[0] == "lstm":
        return f"{home}.lstm.{path[1]}"
    _, layer, *leaf = path
    name = ".".join(leaf)
    ours = next(prefix for prefix in _LAYER if name.startswith(prefix))
    return f"{home}.transformer_encoder.layers.{layer}.{_LAYER[ours]}{name.removeprefix(ours)}"
