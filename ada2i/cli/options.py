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
