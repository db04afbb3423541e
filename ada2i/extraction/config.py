"""What is extracted, and how: every field and its checks."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator

from ada2i import presets
from ada2i.config import Config, Positive
from ada2i.errors import ConfigError
from ada2i.extraction.encoders import registry
from ada2i.extraction.media import MediaSettings
from ada2i.modalities import MODALITIES, Modality

NONE = "none"  # in place of an encoder's name: the set is to lack the modality
_ENCODERS = "encoders."  # prefix of overrides that set what an encoder's constructor takes


class EncoderChoice(Config):
    """One modality's encoder."""

    spec: str = Field(description="A built-in's name, hf:<id or folder>, or package.module:Class.")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="Its constructor's arguments; else its defaults."
    )


class MediaPolicy(Config):
    """When media are too bad to publish features of them."""

    unreadable: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.05, description="Share of a modality's clips that may be unreadable."
    )
    named: int = Field(20, ge=0, description="Problems that the manifest and messages name; a file names all.")


class ChunkSizes(Config):
    """How many vectors a worker makes between two writes: what a killed worker loses at most."""

    text: Positive = 512
    audio: Positive = 64
    visual: Positive = 16


class ExtractionConfig(Config):
    """All of it; only ``encoders`` and ``media`` can change a vector."""

    schema_version: Literal[1] = 1
    encoders: dict[Modality, EncoderChoice]
    media: MediaSettings = MediaSettings()
    policy: MediaPolicy = MediaPolicy()
    chunk: ChunkSizes = ChunkSizes()
    workers: Positive = Field(2, description="Worker processes, each with one processor and one thread.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU for each worker, if there are.")

    @field_validator("encoders")
    @classmethod
    def _some(cls, encoders: dict[Modality, EncoderChoice]) -> dict[Modality, EncoderChoice]:
        if not encoders:
            raise ValueError("there must be one for some modality")
        return {modality: encoders[modality] for modality in MODALITIES if modality in encoders}


def resolve(specs: Mapping[Modality, str | None], overrides: Mapping[str, Any]) -> ExtractionConfig:
    """Build the config: the defaults, then what is given.

    Args:
        specs: By modality, its encoder's name, ``none`` for none, or None for the default.
        overrides: Fields by dotted name; ``encoders.<modality>.<setting>`` is an encoder's setting.

    Raises:
        ConfigError: An encoder, field or value is wrong, or what an encoder needs is not installed.
    """
    chosen = {modality: specs.get(modality) or default for modality, default in registry.DEFAULT_ENCODERS.items()}
    tree: dict[str, Any] = {"encoders": {m: {"spec": s, "settings": {}} for m, s in chosen.items() if s != NONE}}
    for field, value in overrides.items():
        _plant(tree, field, value)
    try:
        config = ExtractionConfig.model_validate(tree)
    except ValidationError as problem:
        mistakes = "\n".join(f"  - {mistake}" for mistake in presets.explain(problem))
        raise ConfigError(f"The config of the extraction has mistakes:\n{mistakes}") from problem
    for modality, encoder in config.encoders.items():
        registry.check(encoder.spec, modality, encoder.settings)
    return config


def _plant(tree: dict[str, Any], field: str, value: object) -> None:
    if not field.startswith(_ENCODERS):
        group, _, name = field.rpartition(".")
        place = tree.setdefault(group, {}) if group else tree
        if not isinstance(place, dict):
            raise ConfigError(f"`{group}` must be set by fields, such as `{field}`. Leave `{group}` out.", field=group)
        place[name] = value
        return
    modality, _, setting = field.removeprefix(_ENCODERS).partition(".")
    if modality not in tree["encoders"] or not setting:
        raise ConfigError(
            f"`{field}` must be encoders.<modality>.<setting> with a modality of {', '.join(tree['encoders'])}, but is "
            "not. Write for example `encoders.visual.size`.",
            field=field,
        )
    tree["encoders"][modality]["settings"][setting] = value
