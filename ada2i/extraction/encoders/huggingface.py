"""Loads Hugging Face models from a folder or the hub; a checkpoint that lacks weights is refused."""

from pathlib import Path
from typing import Any

from ada2i.errors import ConfigError, UnreachableError
from ada2i.extraction.encoders.weights import files_digest

_SETTINGS = ("*.json", "*.txt", "*.model")
# Parts that contribute to no vector here; checkpoints without them are complete.
_UNUSED = ("pooler.", "masked_spec_embed")


def folder(model: str, revision: str) -> Path:
    """Return the folder of a model; a model on the hub is downloaded, unless it is in the cache.

    Args:
        model: A folder, or an id on the hub such as ``microsoft/wavlm-base``.
        revision: A branch, tag or commit on the hub.

    Raises:
        ConfigError: There is no such folder and no such id.
        UnreachableError: The hub does not answer, and the model is not in the cache.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    def fetched(weights: str) -> Path:
        return Path(snapshot_download(model, revision=revision, allow_patterns=[*_SETTINGS, weights]))

    try:
        found = fetched("*.safetensors")
        return found if any(found.glob("*.safetensors")) else fetched("pytorch_model*.bin")
    except LocalEntryNotFoundError as problem:
        raise UnreachableError(
            f"{model} must come from the Hugging Face hub, which cannot be reached, and is not in the local cache. Try "
            "again with a network, or name a folder that holds the model.",
            model=model,
        ) from problem
    except (HfHubHTTPError, HFValidationError) as problem:
        raise ConfigError(
            f"`hf:` must be followed by a folder or by a model's id on the Hugging Face hub, but {model!r} is neither: "
            f"{str(problem).splitlines()[0]} Correct the name.",
            model=model,
        ) from problem


def display_name(model: str) -> str:
    """Return a model's name for people: its id, or its folder's name without local paths."""
    path = Path(model).expanduser()
    return f"hf:{path.resolve().name}" if path.is_dir() else f"hf:{model}"


def digest(place: Path) -> str:
    """Return the SHA-256 of the files that determine what a model computes."""
    weights = list(place.glob("*.safetensors")) or list(place.glob("pytorch_model*.bin"))
    return files_digest([*weights, *(path for pattern in _SETTINGS for path in place.glob(pattern))])


def load_model(auto: Any, place: Path, device: str) -> Any:
    """Load a network for inference.

    Args:
        auto: A class of transformers with ``from_pretrained``.
        place: The model's folder.
        device: Where the network runs.

    Raises:
        ConfigError: The folder holds no such model, or lacks some of its weights, which would then be random numbers.
    """
    from transformers.utils import logging

    quiet: Any = logging
    quiet.disable_progress_bar()
    try:
        network, report = auto.from_pretrained(place, local_files_only=True, output_loading_info=True)
    except (OSError, ValueError) as problem:
        raise ConfigError(
            f"{place.name} must be a model that transformers loads, but: {str(problem).splitlines()[0]} Fetch it "
            "again, or choose another.",
            model=place.name,
        ) from problem
    missing = sorted(key for key in report["missing_keys"] if not any(part in key for part in _UNUSED))
    if missing or report["mismatched_keys"]:
        raise ConfigError(
            f"{place.name} must hold all weights of its network, but lacks {len(missing)}, such as "
            f"{', '.join(missing[:3])}. Choose a checkpoint of the whole encoder.",
            model=place.name,
        )
    return network.eval().requires_grad_(requires_grad=False).to(device)
