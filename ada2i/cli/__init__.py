"""The `ada2i` command: one subcommand per capability, without logic of its own.

Each file of commands defines an ``app``; to add a file, list it in ``_FILES``.
Exit codes: 0 success; 1 failure; 2 the input, config or credentials must be changed, and nothing was written.
"""

import logging
import os
import sys
from typing import Annotated

import typer
from rich.text import Text

from ada2i import __version__
from ada2i.cli import (
    auditing,
    comparing,
    distilling,
    doctoring,
    drifting,
    extracting,
    flooring,
    importing,
    predicting,
    registry,
    reproducing,
    serving,
    tracking,
    training,
    tuning,
)
from ada2i.display import PlainConsole
from ada2i.errors import Ada2iError, ConfigError
from ada2i.jobs import logs
from ada2i.store import DEFAULT_ROOT

__all__ = ["app", "main", "training"]

# In the order in which `ada2i --help` lists them.
_FILES = (
    extracting,
    importing,
    auditing,
    flooring,
    training,
    distilling,
    tuning,
    predicting,
    drifting,
    serving,
    reproducing,
    comparing,
    registry,
    tracking,
    doctoring,
)

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, help="Balanced emotion recognition in conversations."
)
for _file in _FILES:
    app.add_typer(_file.app)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ada2i {__version__}")
        raise typer.Exit


@app.callback()
def _setup(
    version: Annotated[  # noqa: ARG001 - its callback prints it
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    logs.configure()
    if os.environ.get("ADA2I_ROOT") == "":  # typer would take the default, which is another root
        raise ConfigError(
            "ADA2I_ROOT must be a folder or s3://bucket/prefix, but is empty. Set it, or unset it to use "
            f"`{DEFAULT_ROOT}`."
        )


def main() -> None:
    """Entry point: run the command, and turn errors of this package into a message and an exit code."""
    try:
        app()
    except Ada2iError as error:
        _tell(error)
        sys.exit(error.exit_code)


def _tell(error: Ada2iError) -> None:
    if os.environ.get(logs.FORMAT) == "json":
        logging.getLogger(__name__).error(error.message, extra={"facts": {"error": type(error).__name__}})
        return
    PlainConsole(stderr=True).print(Text.assemble(("error:", "bold red"), " ", error.message), soft_wrap=True)
