"""The `ada2i` command: one subcommand per capability, without logic of its own.

Each file of commands defines an ``app``; to add a file, list it in ``_FILES``.
Exit codes: 0 success; 1 failure; 2 the input, config or credentials must be changed, and nothing was written.
"""

import logging
import os
import sys

import typer
from rich.console import Console

from ada2i.cli import (
    auditing,
    comparing,
    doctoring,
    extracting,
    importing,
    predicting,
    registry,
    reproducing,
    training,
    tuning,
)
from ada2i.errors import Ada2iError
from ada2i.jobs import logs

__all__ = ["app", "main", "training"]

# In the order in which `ada2i --help` lists them.
_FILES = (extracting, importing, auditing, training, tuning, predicting, reproducing, comparing, registry, doctoring)

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, help="Balanced emotion recognition in conversations."
)
for _file in _FILES:
    app.add_typer(_file.app)


@app.callback()
def _setup() -> None:
    logs.configure()


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
    Console(stderr=True).print(f"[bold red]error:[/bold red] {_plain(error.message)}", soft_wrap=True, highlight=False)


def _plain(text: str) -> str:
    """Return a text in which Rich does not read brackets as markup."""
    return text.replace("[", r"\[")
