"""Output of commands: the console, and the parts that several commands print."""

import os
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ada2i.display import PlainConsole

if TYPE_CHECKING:
    from ada2i.records import Record

out = PlainConsole()


def facts(values: dict[str, Any]) -> Table:
    """Return a table of names and values."""
    table = Table(show_header=False, box=None)
    for key, value in values.items():
        table.add_row(Text(key, "bold"), Text(str(value), overflow="fold"))
    return table


def show_wide(parts: Iterable[RenderableType], width: int) -> None:
    """Print parts with long lines; use ``width`` if the output is not a terminal."""
    console = out if out.is_terminal else PlainConsole(width=width)
    for part in parts:
        console.print(part)


def line(text: str, style: str = "") -> None:
    """Print a line of text, which is not wrapped."""
    out.print(Text(text, style), soft_wrap=True)


def browse(page: bytes, name: str, to: Path | None = None) -> None:
    """Show a page in the browser, if there is a screen; print the path of the file: ``to``, or a temporary one."""
    file = to or Path(tempfile.mkdtemp(prefix="ada2i-report-")) / f"{name}.html"
    file.write_bytes(page)
    if sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        typer.launch(file.resolve().as_uri())  # without a screen, xdg-open prints errors
    line(str(file))


def print_record(record: "Record") -> None:
    """Print a record as JSON, without anything else."""
    out.print_json(record.to_json().decode())


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files to a folder; create it if it does not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
