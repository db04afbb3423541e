"""From a config to a module: the one place of the model that sees a config."""

from collections.abc import Mapping

from ada2i.config import EncoderConfig, TrainConfig
from ada2i.errors import ConfigError
from ada2i.modalities import Modality
from ada2i.model.ada2i import Ada2I
from ada2i.model.afw import AdaptiveFeatureWeighting
from ada2i.model.amw import Fusion
from ada2i.model.encoders import LstmEncoder, TransformerEncoder


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
    afw = None
    if not config.ablations.no_afw:
        afw = AdaptiveFeatureWeighting(
            modalities=model.modalities,
            hidden_dim=model.hidden_dim,
            rank=model.afw.rank,
            beta=model.afw.beta,
            layers=model.afw.layers,
            dropout=model.afw.dropout,
        )
    return Ada2I(
        encoders={m: _encoder(model.encoder, widths[m], model.hidden_dim) for m in model.modalities},
        afw=afw,
        fusion=Fusion(
            modalities=model.modalities,
            hidden_dim=model.hidden_dim,
            classes=classes,
            normalised=not config.ablations.no_amw,
        ),
        average_padding=model.afw.average_padding,
    )


def _encoder(config: EncoderConfig, width: int, hidden_dim: int) -> TransformerEncoder | LstmEncoder:
    if config.kind == "lstm":
        return LstmEncoder(width=width, hidden_dim=hidden_dim, layers=config.layers, dropout=config.dropout)
    return TransformerEncoder(
        width=width,
        hidden_dim=hidden_dim,
        layers=config.layers,
        feedforward_dim=config.feedforward_dim,
        dropout=config.dropout,
        attend_to_padding=config.attend_to_padding,
    )
