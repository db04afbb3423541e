"""Builds models from registered versions, pulled copies, and checkpoints; every byte is checked before its use."""

from collections.abc import Mapping
from contextlib import nullcontext

import torch
from safetensors import SafetensorError
from torch import Tensor

from ada2i import checkpoint
from ada2i.config import TrainConfig
from ada2i.errors import DataError
from ada2i.inference.versions import check_code, load_config
from ada2i.model.ada2i import Ada2I
from ada2i.model.build import build_model
from ada2i.records import FeatureInfo, get_folder_file
from ada2i.registry.versions import Version

_WEIGHTS = "weights.safetensors"


def load_model(uri: str, version: Version) -> Ada2I:
    """Return a version's model with its temperature, in eval mode, on the CPU.

    Raises:
        ConfigError: Its config names code that the caller of this process did not name.
        IntegrityError: A file differs from the registered one.
        DataError: Weights or config were written by another version of ada2i.
    """
    from safetensors.torch import load

    config = load_config(uri, version)
    check_code(config, version)
    try:
        weights = load(get_folder_file(uri, _WEIGHTS, version.files[_WEIGHTS]))
    except SafetensorError as problem:
        raise DataError(
            f"{uri}/{_WEIGHTS} must be weights of this version of ada2i, but: {str(problem).splitlines()[0]} Predict "
            "with the version that trained it; its environment.json names it.",
            uri=uri,
        ) from problem
    model = _model(config, version.features, weights, uri)
    model.temperature = 1.0 if config.regression else version.temperature
    return model


def load_checkpoint(uri: str) -> Ada2I:
    """Return a checkpoint's model, in eval mode, on the CPU.

    Raises:
        IntegrityError: A file differs from its digest.
        DataError: The checkpoint has another schema version.
    """
    cursor = checkpoint.load_progress(uri)
    return _model(cursor.config, cursor.features, checkpoint.load_weights(uri), uri)


def _model(config: TrainConfig, features: FeatureInfo, weights: Mapping[str, Tensor], uri: str) -> Ada2I:
    if infinite := [name for name, tensor in weights.items() if not tensor.isfinite().all()]:
        raise DataError(
            f"{uri} must hold finite weights, but {infinite[0]} has others. Restore it, or train again.", uri=uri
        )
    try:
        _check_sizes(config, features, weights)
        # On `meta` nothing is drawn: random numbers belong to the caller, and to trainings in other threads. A class
        # outside of ada2i may hold tensors that are no weights, so it is built as in training.
        ours = not config.own_code
        with torch.device("meta") if ours else nullcontext():
            model = build_model(config, widths=features.widths, classes=len(features.labels))
        model.load_state_dict(weights, assign=ours)
    except (RuntimeError, ValueError) as problem:  # torch raises these if names, shapes or sizes differ
        raise DataError(
            f"{uri} must hold weights of this version of ada2i, as its config describes them, but: "
            f"{str(problem).splitlines()[0]} Predict with the version that trained it; its environment.json names it.",
            uri=uri,
        ) from problem
    return model.eval()


def _check_sizes(config: TrainConfig, features: FeatureInfo, weights: Mapping[str, Tensor]) -> None:
    """Refuse sizes that no weight has before memory is taken for them: those in a changed config may be huge."""
    model, afw = config.model, config.has_afw
    own = ":" in model.encoder.kind  # it may have weights of other sizes
    layered = not own and model.encoder.kind != "lstm"
    sizes = [model.hidden_dim, len(features.labels), *(features.widths[m] for m in model.modalities if not own)]
    sizes += [model.encoder.feedforward_dim] * layered + [model.afw.rank] * afw
    largest = max((size for tensor in weights.values() for size in tensor.shape), default=0)
    layers = max(model.encoder.layers * (not own), model.afw.layers * afw)
    if max(sizes) > largest or layers > len(weights):
        raise ValueError(f"the config has sizes up to {max(sizes)} and {layers} layers.")
