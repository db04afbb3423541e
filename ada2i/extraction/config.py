"""The config of an extraction: every field and its checks."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator

from ada2i import presets
from ada2i.config import Config, PlaceConfig, Positive, ResourceConfig
from ada2i.data.splits import GATE_SHARE
from ada2i.errors import ConfigError
from ada2i.extraction.encoders import registry
from ada2i.extraction.media import MediaSettings
from ada2i.modalities import MODALITIES, Modality

NONE = "none"  # instead of an encoder's name: leave the modality out
_ENCODERS = "encoders."  # prefix of overrides that set arguments of an encoder's constructor


class EncoderChoice(Config):
    """One modality's encoder."""

    spec: str = Field(description="A built-in's name, hf:<id or folder>, package.module:Class, or several of them.")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="Arguments of its constructor; of several encoders, by encoder."
    )


class MediaPolicy(Config):
    """Limits above which features of unreadable media are not published."""

    unreadable: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.05, description="Share of a modality's clips that may be unreadable."
    )
    named: int = Field(20, ge=0, description="Problems listed in the manifest and messages; a file lists all.")


class ChunkSizes(Config):
    """Vectors that a worker makes between two writes: at most these are lost when a worker is killed."""

    text: Positive = 512
    audio: Positive = 64
    visual: Positive = 16


class ExtractionConfig(PlaceConfig):
    """The whole config; only ``encoders`` and ``media`` can change a vector."""

    schema_version: Literal[1] = 1
    encoders: dict[Modality, EncoderChoice]
    media: MediaSettings = MediaSettings()
    policy: MediaPolicy = MediaPolicy()
    gate_share: Annotated[float, Field(ge=0.0, le=0.5)] = Field(
        GATE_SHARE, description="Share of train's dialogues, newest by `recorded_at`, for the gate."
    )
    chunk: ChunkSizes = ChunkSizes()
    workers: Positive = Field(2, description="Worker processes, each with one processor and one thread.")

    @field_validator("encoders")
    @classmethod
    def _some(cls, encoders: dict[Modality, EncoderChoice]) -> dict[Modality, EncoderChoice]:
        if not encoders:
            raise ValueError("there must be an encoder for at least one modality")
        return {modality: encoders[modality] for modality in MODALITIES if modality in encoders}

    @property
    def resources(self) -> ResourceConfig:
        """The workers, and which CPUs and GPUs they get."""
        return ResourceConfig(workers=self.workers, **{name: getattr(self, name) for name in PlaceConfig.model_fields})


def resolve(specs: Mapping[Modality, str | None], overrides: Mapping[str, Any]) -> ExtractionConfig:
    """Build the config from the defaults and the given values.

    Args:
        specs: By modality, the names of its encoders, separated by commas, ``none`` for no encoder, or None for the
            default.
        overrides: Fields by dotted name; ``encoders.<modality>.<setting>`` is an encoder's setting, and
            ``encoders.<modality>.<encoder>.<setting>`` one of several encoders'.

    Raises:
        ConfigError: An encoder, field or value is wrong, or a package that an encoder needs is not installed.
    """
    chosen = {
        modality: registry.with_absolute_folders(specs.get(modality) or default)
        for modality, default in registry.DEFAULT_ENCODERS.items()
    }
    tree: dict[str, Any] = {"encoders": {m: {"spec": s, "settings": {}} for m, s in chosen.items() if s != NONE}}
    for field, value in overrides.items():
        _set_field(tree, field, value)
    try:
        config = ExtractionConfig.model_validate(tree)
    except ValidationError as problem:
        mistakes = "\n".join(f"  - {mistake}" for mistake in presets.explain(problem))
        raise ConfigError(f"The config of the extraction has mistakes:\n{mistakes}") from problem
    for modality, encoder in config.encoders.items():
        registry.check(encoder.spec, modality, encoder.settings)
    return config


def _set_field(tree: dict[str, Any], field: str, value: object) -> None:
    if not field.startswith(_ENCODERS):
        group, _, name = field.rpartition(".")
        place = tree.setdefault(group, {}) if group else tree
        if not isinstance(place, dict):
            raise ConfigError(f"`{group}` must be set by field, such as `{field}`. Leave `{group}` out.", field=group)
        place[name] = value
        return
    modality, _, setting = field.removeprefix(_ENCODERS).partition(".")
    if modality not in tree["encoders"] or not setting:
        raise ConfigError(
            f"`{field}` must be encoders.<modality>.<setting> with a modality of {', '.join(tree['encoders'])}, but is "
            "not. Write for example `encoders.visual.size`.",
            field=field,
        )
    encoder = tree["encoders"][modality]
    settings, names = encoder["settings"], registry.parts(encoder["spec"])
    part, _, argument = setting.rpartition(".")
    if part not in names:
        settings[setting] = value
    elif len(names) == 1:
        settings[argument] = value
    else:
        settings[part] = {**settings.get(part, {}), argument: value}
