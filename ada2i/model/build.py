"""Builds the network from a config: the only file of the model that reads a config and chooses between modules."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from ada2i.config import TrainConfig
from ada2i.errors import ConfigError
from ada2i.jobs import code
from ada2i.modalities import Modality
from ada2i.model import afw, amw
from ada2i.model.ada2i import Ada2I
from ada2i.model.context import ContextEncoder
from ada2i.model.encoders import (
    Autocast,
    Encoder,
    LstmEncoder,
    Padded,
    Rounded,
    SeesPadding,
    TransformerEncoder,
    Unpadded,
)
from ada2i.model.inputs import KeepInputs, MaskInputs, Standardise
from ada2i.model.own import EncoderHolder, FusionHolder
from ada2i.model.relational import Neighbours, RelationalEncoder


def build_model(config: TrainConfig, *, widths: Mapping[Modality, int], classes: int) -> Ada2I:
    """Build a model with weights initialised from torch's global random state.

    Args:
        config: The resolved config.
        widths: Width of each modality's features; may contain more modalities than the model uses.
        classes: Number of classes; a model for regression has one output in their place.

    Raises:
        ConfigError: The features lack a modality that the config names.
    """
    model, ablations = config.model, config.ablations
    signs, classes = (classes, 1) if config.regression else (0, classes)
    if missing := [m for m in model.modalities if m not in widths]:
        raise ConfigError(
            f"`model.modalities` names {', '.join(missing)}, but the features hold {', '.join(widths)}. "
            "Choose others with `--modalities`.",
            field="model.modalities",
        )
    encoders = {m: _encoder(config, widths[m]) for m in model.modalities}
    votes = (config.balance.ratio == "votes" and not ablations.no_amw) or model.fusion != "ada2i"
    return Ada2I(
        encoders=encoders,
        afw=_afw(config) if config.has_afw else afw.FeatureWeighting(),
        fusion=_fusion(config, classes),
        head=_head(config, classes),
        input_norms={m: _input_norm(config, widths[m]) for m in model.modalities},
        encode={m: _wrapped(config, encoder) for m, encoder in encoders.items()},
        extend=_neighbours(config) if model.encoder.kind == "relational" else None,
        mask_missing=model.mask_missing,
        unimodal_votes=votes,
        signs=signs,
    )


def _input_norm(config: TrainConfig, width: int) -> nn.Module:
    if config.model.normalise == "train":
        return Standardise(width=width)
    return MaskInputs() if config.model.mask_missing else KeepInputs()


def _encoder(config: TrainConfig, width: int) -> nn.Module:
    encoder, hidden_dim = config.model.encoder, config.model.hidden_dim
    if encoder.kind == "lstm":
        return LstmEncoder(width=width, hidden_dim=hidden_dim, layers=encoder.layers, dropout=encoder.dropout)
    numbers: dict[str, Any] = {
        "width": width,
        "hidden_dim": hidden_dim,
        "layers": encoder.layers,
        "feedforward_dim": encoder.feedforward_dim,
        "dropout": encoder.dropout,
    }
    if encoder.kind == "transformer":
        return TransformerEncoder(**numbers, causal=encoder.causal)
    numbers["input_dropout"] = encoder.input_dropout
    if encoder.kind == "relational":
        return RelationalEncoder(**numbers, relations=_neighbours(config).relations)
    numbers["causal"] = encoder.causal
    if ":" in encoder.kind:
        return EncoderHolder(_module(encoder.kind, "The encoder", numbers, encoder.options))
    return ContextEncoder(**numbers, inertia=encoder.inertia, positions=encoder.positions, speakers=encoder.speakers)


def _neighbours(config: TrainConfig) -> Neighbours:
    encoder = config.model.encoder
    return Neighbours(decays=encoder.decays, dialogue_decay=encoder.dialogue_decay, causal=encoder.causal)


def _module(name: str, what: str, numbers: Mapping[str, Any], options: Mapping[str, Any]) -> nn.Module:
    found = code.build(name, what, numbers, options)
    if not isinstance(found, nn.Module):
        raise ConfigError(
            f"{what} {name} must be a torch.nn.Module, but is a {type(found).__name__}. Derive its class from it.",
            code=name,
        )
    return found


def _wrapped(config: TrainConfig, encode: Encoder) -> Encoder:
    """Return an encoder that sees padding or not, computes in the config's precision and returns AFW's input shape."""
    encoder = config.model.encoder
    sees_padding = encoder.attend_to_padding and encoder.kind == "transformer"
    returns_grid = config.model.afw.average_padding and config.has_afw
    if sees_padding:
        encode = SeesPadding(encode)
    if config.model.precision == "bfloat16":
        encode = Autocast(encode) if sees_padding else Rounded(Autocast(encode))
    if sees_padding != returns_grid:
        encode = Padded(encode) if returns_grid else Unpadded(encode)
    return encode


def _afw(config: TrainConfig) -> afw.FeatureWeighting:
    model, chosen = config.model, config.model.afw
    layers = [
        afw.AfwLayer(
            modalities=model.modalities,
            hidden_dim=model.hidden_dim,
            rank=chosen.rank,
            beta=chosen.beta,
            dropout=chosen.dropout,
            cyclic=chosen.order == "cyclic",
            key_dim=chosen.key_dim,
            normalise=chosen.normalise,
            learns_attention=chosen.target == "attention",
            mean_gap=chosen.average_padding,
        )
        for _ in range(chosen.layers)
    ]
    for layer in layers if chosen.quiet_start else ():
        layer.start_quietly()
    averaging = afw.CausalAverage if model.encoder.causal else afw.DialogueAverage
    return (afw.GridFeatureWeighting if chosen.average_padding else afw.AdaptiveFeatureWeighting)(layers, averaging)


def _fusion(config: TrainConfig, classes: int) -> amw.Fusion | FusionHolder:
    model, chosen = config.model, config.model.amw
    if model.fusion != "ada2i":
        numbers = {"modalities": model.modalities, "hidden_dim": model.hidden_dim, "classes": classes}
        numbers["dropout"] = model.afw.dropout
        own = _module(model.fusion, "The fusion", numbers, model.fusion_options)
        return FusionHolder(own, classes, model.modalities)
    plain = config.ablations.no_amw
    # The length of a feature, which a cosine leaves out, tells how large a number is.
    linear = plain or config.regression
    vote: amw.Vote = amw.CosineVote(dim=0 if chosen.normalise == "classes" else 1, scale=chosen.scale)
    return (amw.SkillFusion if chosen.weights == "held-out" and not plain else amw.Fusion)(
        modalities=model.modalities,
        hidden_dim=model.hidden_dim,
        classes=classes,
        vote=amw.linear_vote if linear else vote,
        bias=chosen.bias or plain,
    )


def _head(config: TrainConfig, classes: int) -> nn.Module:
    if config.model.prediction == "sum":
        return nn.Identity()
    # The paper says "an MLP with ReLU"; one hidden layer of the model's width.
    hidden_dim = config.model.hidden_dim
    return nn.Sequential(nn.Linear(classes, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, classes))
