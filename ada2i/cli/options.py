"""Options that several commands take, and their checks."""

from pathlib import Path
from typing import Annotated

import typer

from ada2i import storage
from ada2i.errors import ConfigError

Root = Annotated[
    str, typer.Option(envvar="ADA2I_ROOT", help="Where everything is kept: a folder, or s3://bucket/prefix.")
]
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]
Model = Annotated[str, typer.Argument(help="A model's name.")]
Reference = Annotated[str, typer.Argument(help="MODEL@ALIAS, MODEL@NUMBER, or MODEL for its newest.")]


def writable(root: str) -> str:
    """Return the URI of a root, after making sure that it can be written."""
    root = storage.normalise(root)
    storage.check_writable(root)
    return root


def check_target(option: str, target: Path | None) -> None:
    """Refuse a file that could not be written at the end.

    Raises:
        ConfigError: It is a folder, or in none that exists.
    """
    if target is not None and (target.is_dir() or not target.resolve().parent.is_dir()):
        raise ConfigError(
            f"`{option}` must name a file in a folder that exists, but is {target}. Create the folder, or name a file "
            "in it."
        )


def check_folder(folder: Path | None) -> None:
    """Refuse an `--out` that is no folder.

    Raises:
        ConfigError: It is a file.
    """
    if folder is not None and folder.exists() and not folder.is_dir():
        raise ConfigError(f"`--out` must name a folder, but {folder} is a file. Name another.", field="out")


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return seeds: of a count, so many from 1 on, or those of a list with commas.

    Raises:
        ConfigError: It is neither.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and part.isascii() for part in parts) or parts == ["0"]:
        raise ConfigError(
            f"`--seeds` must be a count from 1 on, or whole numbers separated by commas, but is {text!r}. Write for "
            "example `--seeds 5` or `--seeds 1,2,3`.",
            field="seeds",
        )
    numbers = tuple(map(int, parts))
    return numbers if len(numbers) > 1 else tuple(range(1, numbers[0] + 1))
