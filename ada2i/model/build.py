"""From a config to a module: the one place of the model that sees a config."""

from collections.abc import Mapping

from torch import nn

from ada2i.config import EncoderConfig, ModelConfig, TrainConfig
from ada2i.errors import ConfigError
from ada2i.modalities import Modality
from ada2i.model.ada2i import Ada2I
from ada2i.model.afw import AdaptiveFeatureWeighting, AfwLayer
from ada2i.model.amw import Fusion
from ada2i.model.context import ContextEncoder
from ada2i.model.encoders import LstmEncoder, TransformerEncoder
from ada2i.model.standardise import Standardise


def build_model(config: TrainConfig, *, widths: Mapping[Modality, int], classes: int) -> Ada2I:
    """Build an initialised model, from torch's global random state.

    Args:
        config: The resolved config.
        widths: Width of each modality's features; may name more modalities than the model uses.
        classes: Number of classes.

    Raises:
        ConfigError: The features lack a modality that the config names.
    """
    model = config.model
    if missing := [m for m in model.modalities if m not in widths]:
        raise ConfigError(
            f"`model.modalities` names {', '.join(missing)}, but the features hold {', '.join(widths)}. "
            "Choose others with `--modalities`.",
            field="model.modalities",
        )
    no_amw = config.ablations.no_amw
    return Ada2I(
        encoders={m: _encoder(model.encoder, widths[m], model.hidden_dim) for m in model.modalities},
        afw=None if config.ablations.no_afw else _afw(model),
        fusion=_fusion(model, classes, normalised=not no_amw),
        average_padding=model.afw.average_padding,
        head=_head(model.hidden_dim, classes) if model.prediction == "mlp" else None,
        standardise={m: Standardise(width=widths[m]) for m in model.modalities} if model.normalise != "none" else None,
        by_speaker=model.normalise == "speaker",
        mask_missing=model.mask_missing,
        modality_dropout=model.modality_dropout,
        ratio_from_votes=config.balance.ratio == "votes" and not no_amw,
        encode_in_bfloat16=model.precision == "bfloat16",
    )


def _encoder(config: EncoderConfig, width: int, hidden_dim: int) -> TransformerEncoder | ContextEncoder | LstmEncoder:
    if config.kind == "context":
        return ContextEncoder(
            width=width,
            hidden_dim=hidden_dim,
            layers=config.layers,
            feedforward_dim=config.feedforward_dim,
            dropout=config.dropout,
            input_dropout=config.input_dropout,
            inertia=config.inertia,
            positions=config.positions,
            speakers=config.speakers,
            causal=config.causal,
        )
    if config.kind == "lstm":
        return LstmEncoder(width=width, hidden_dim=hidden_dim, layers=config.layers, dropout=config.dropout)
    return TransformerEncoder(
        width=width,
        hidden_dim=hidden_dim,
        layers=config.layers,
        feedforward_dim=config.feedforward_dim,
        dropout=config.dropout,
        attend_to_padding=config.attend_to_padding,
        positions=config.positions,
        speakers=config.speakers,
        causal=config.causal,
    )


def _afw(model: ModelConfig) -> AdaptiveFeatureWeighting:
    config = model.afw
    return AdaptiveFeatureWeighting(
        [
            AfwLayer(
                modalities=model.modalities,
                hidden_dim=model.hidden_dim,
                rank=config.rank,
                beta=config.beta,
                dropout=config.dropout,
                key_dim=config.key_dim,
                normalise=config.normalise,
                quiet_start=config.quiet_start,
                cyclic=config.order == "cyclic",
                map_attention=config.target == "attention",
                mean_over_modalities=config.average_padding,
                causal=model.encoder.causal,
            )
            for _ in range(config.layers)
        ]
    )


def _fusion(model: ModelConfig, classes: int, *, normalised: bool) -> Fusion:
    return Fusion(
        modalities=model.modalities,
        hidden_dim=model.hidden_dim,
        classes=classes,
        normalise=model.amw.normalise if normalised else None,
        scale=model.amw.scale if normalised else 1.0,
        learn_scale=model.amw.learn_scale and normalised,
        bias=model.amw.bias or not normalised,
        weighted=model.amw.weights == "held-out" and normalised,
    )


def _head(hidden_dim: int, classes: int) -> nn.Module:
    # The paper says "an MLP with ReLU"; one hidden layer of the model's width.
    return nn.Sequential(nn.Linear(classes, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, classes))
