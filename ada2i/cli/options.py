"""Options that several commands take, and their checks."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ada2i import presets, storage
from ada2i.errors import Ada2iError, ConfigError
from ada2i.modalities import LETTERS, MODALITIES, Modality
from ada2i.store import Store

if TYPE_CHECKING:
    from ada2i.training.request import TrainSpec


def path(text: str) -> Path:
    """Return the path of an option or argument that names a local file or folder.

    Raises:
        InputError: It is empty, or a URI.
    """
    if storage.check(text):
        shown = storage.public(text)
        raise ConfigError(f"{shown} must be a local path, but is a URI. Name a local file or folder.", uri=shown)
    return Path(text)


def target(param: typer.CallbackParam, file: Path | None) -> Path | None:
    """Refuse a file that cannot be written later.

    Raises:
        ConfigError: It is a folder, or its folder does not exist.
    """
    if file is not None and (file.is_dir() or not file.resolve().parent.is_dir()):
        raise ConfigError(
            f"`{param.opts[0]}` must name a file in an existing folder, but is {file}. Create the folder, or name a "
            "file in an existing one."
        )
    return file


def _folder(folder: Path | None) -> Path | None:
    if folder is not None and folder.exists() and not folder.is_dir():
        raise ConfigError(f"`--out` must name a folder, but {folder} is a file. Name another.", field="out")
    return folder


def _name(model: str | None) -> str | None:
    from ada2i.registry.versions import check_model_name

    if model is not None:
        check_model_name(model)
    return model


Root = Annotated[
    str, typer.Option(envvar="ADA2I_ROOT", help="Where everything is stored: a folder, or s3://bucket/prefix.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, and nothing else there.")]
OutFolder = Annotated[
    Path | None,
    typer.Option("--out", parser=path, callback=_folder, help="Folder for plot.png and the table in several formats."),
]


def complete_model(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the name of a model."""
    from ada2i.registry.versions import models

    with suppress(Ada2iError):
        return [name for name in models(Store.open(ctx.params.get("root")).root) if name.startswith(incomplete)]
    return []


def _complete_version(ctx: typer.Context, incomplete: str) -> list[str]:
    from ada2i.registry.aliases import aliases
    from ada2i.registry.versions import versions

    model, at, _ = incomplete.partition("@")
    if not at:
        return complete_model(ctx, incomplete)
    with suppress(Ada2iError):
        root = Store.open(ctx.params.get("root")).root
        numbers = [str(version.number) for version in versions(root, model)]
        names = (f"{model}@{which}" for which in (*aliases(root, model), *numbers))
        return [name for name in names if name.startswith(incomplete)]
    return []


def _complete_override(incomplete: str) -> list[str]:
    from ada2i.config import TrainConfig

    fields = set(presets.field_names(TrainConfig)) - {"schema_version", "preset", "settings"}
    return sorted(f"{field}=" for field in fields if field.startswith(incomplete))


def complete_encoder(modality: Modality, incomplete: str) -> list[str]:
    """Complete the last of a modality's encoders, which commas separate."""
    from ada2i.extraction.encoders.registry import ENCODERS

    before, comma, last = incomplete.rpartition(",")
    names = (spec.name for spec in ENCODERS if spec.modality == modality and spec.name not in before.split(","))
    return [f"{before}{comma}{name}" for name in names if name.startswith(last)]


def _complete_choice(incomplete: str) -> list[str]:
    given, equals, encoders = incomplete.partition("=")
    modalities = [name for name in MODALITIES if name.startswith(given)]
    if not equals:
        return [f"{name}=" for name in modalities]
    return [f"{given}={name}" for one in modalities if one == given for name in complete_encoder(one, encoders)]


Model = Annotated[str, typer.Argument(help="A model's name.", autocompletion=complete_model)]
NewModel = Annotated[
    str | None, typer.Option("--model", callback=_name, help="Name in the registry. Default: ada2i-DATASET.")
]
Reference = Annotated[
    str,
    typer.Argument(
        help="MODEL@ALIAS, MODEL@NUMBER, or MODEL for its newest version.", autocompletion=_complete_version
    ),
]

# What to train, and how.
Features = Annotated[str, typer.Argument(help="A feature set, a table to import, or `demo`.")]
Preset = Annotated[
    str,
    typer.Option(help=f"Variant of Ada2I: {', '.join(presets.PRESETS)}.", autocompletion=lambda: list(presets.PRESETS)),
]
Settings = Annotated[
    str | None,
    typer.Option(
        help=f"Published settings: {', '.join(presets.SETTINGS)}. Default: the dataset's.",
        autocompletion=lambda: list(presets.SETTINGS),
    ),
]
_LETTERS = ", ".join(f"{letter}({name.removeprefix(letter)})" for letter, name in LETTERS.items())
Modalities = Annotated[
    str | None, typer.Option(help=f"Letters of {_LETTERS}, in order. Default: all that the features hold.")
]
Encoders = Annotated[
    list[str] | None,
    typer.Option(
        "--encoder",
        help="MODALITY=NAME: encoder of a raw corpus, or NAME,NAME; repeatable. Default: see `ada2i encoders`.",
        autocompletion=_complete_choice,
    ),
]
Local = Annotated[
    bool, typer.Option("--local", help="Use this process only, without Ray: no cluster is started or needed.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="FIELD=VALUE of the config; repeatable. `ada2i config` lists the fields.",
        autocompletion=_complete_override,
    ),
]
Code = Annotated[
    list[str] | None,
    typer.Option(help="package.module:Class that a version may name for its model; its code runs. Repeatable."),
]
Allow = Annotated[list[str] | None, typer.Option(help="Code of an audit finding to ignore; repeatable.")]


def writable(root: str) -> str:
    """Return the URI of a root after checking that it can be written."""
    root = storage.normalise(root)
    storage.check_writable(root)
    return root


def parse_overrides(set_: list[str] | None) -> dict[str, Any]:
    """Return the values of all `--set` options, by field.

    Raises:
        ConfigError: An option is not FIELD=VALUE.
    """
    return dict(presets.parse_override(text) for text in set_ or ())


def train_spec(
    features: str,
    preset: str,
    settings: str | None,
    modalities: str | None,
    *,
    overrides: list[str] | None,
    named: dict[str, Any],
    allow: list[str] | None,
    encoders: list[str] | None = None,
) -> "TrainSpec":
    """Return the spec of a training run from the options of a command.

    Args:
        features: See ``TrainSpec``.
        preset: See ``TrainSpec``.
        settings: See ``TrainSpec``.
        modalities: See ``TrainSpec``.
        overrides: The values of all ``--set`` options.
        named: Config fields that have their own option; None: the option was not given.
        allow: The values of all ``--allow`` options.
        encoders: The values of all ``--encoder`` options.

    Raises:
        ConfigError: An override is not FIELD=VALUE, a field is given twice, or an encoder's modality is unknown.
    """
    from ada2i.training.request import TrainSpec, with_named

    return TrainSpec(
        features=features,
        preset=preset,
        settings=settings,
        modalities=modalities,
        overrides=with_named(parse_overrides(overrides), named),
        encoders=parse_encoders(encoders),
        allow=tuple(allow or ()),
    )


def parse_encoders(texts: list[str] | None) -> "dict[Modality, str | None]":
    """Return the values of all ``--encoder`` options, by modality.

    Raises:
        ConfigError: An option is not MODALITY=NAME.
    """
    found: dict[Modality, str | None] = {}
    for text in texts or ():
        given, _, name = text.partition("=")
        modality = next((known for known in MODALITIES if known == given), None)
        if modality is None or not name:
            raise ConfigError(
                f"`--encoder` takes MODALITY=NAME with a modality of {', '.join(MODALITIES)}, but got {text!r}. Write "
                "for example `--encoder text=minilm`.",
                field="encoder",
            )
        found[modality] = name
    return found


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return seeds from a comma-separated list.

    Raises:
        ConfigError: The text is not such a list.
    """
    if seeds := _numbers(text):
        return seeds
    raise ConfigError(
        f"`--seeds` must be whole numbers separated by commas, but is {text!r}. Write for example `--seeds 1,2`."
    )


def count_seeds(text: str) -> tuple[int, ...]:
    """Return seeds: 1 to N for a count N, or the numbers of a comma-separated list.

    Raises:
        ConfigError: The text is neither.
    """
    seeds = _numbers(text)
    if seeds in ((), (0,)):
        raise ConfigError(
            f"`--seeds` must be a count of at least 1, or whole numbers separated by commas, but is {text!r}. Write "
            "for example `--seeds 5` or `--seeds 1,2,3`.",
            field="seeds",
        )
    return seeds if len(seeds) > 1 else tuple(range(1, seeds[0] + 1))


def _numbers(text: str) -> tuple[int, ...]:
    """Return comma-separated whole numbers, or an empty list if the text is not such a list."""
    parts = [part.strip() for part in text.split(",")]
    return tuple(map(int, parts)) if all(part.isdecimal() and part.isascii() for part in parts) else ()
