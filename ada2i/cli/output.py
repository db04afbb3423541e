"""Output of commands: the console, and the parts that several commands print."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from ada2i.records import Record, Summary

out = Console()


def mean_text(summary: "Summary") -> str:
    """Return a score over seeds: its mean, and its standard deviation if there are several seeds."""
    return f"{summary.mean:.4f}" + (f" ± {summary.sd:.4f}" if summary.sd is not None else "")


def facts(values: dict[str, Any]) -> Table:
    """Return a table of names and values."""
    table = Table(show_header=False, box=None)
    for key, value in values.items():
        table.add_row(Text(key, "bold"), Text(str(value), overflow="fold"))
    return table


def show_wide(parts: Iterable[RenderableType], width: int) -> None:
    """Print parts with long lines; use ``width`` if the output is not a terminal."""
    console = out if out.is_terminal else Console(width=width)
    for part in parts:
        console.print(part)


def write_json(file: Path | None, record: "Record") -> None:
    """Write a record to the file that `--json` names, if it is given."""
    if file is not None:
        file.write_bytes(record.to_json())


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files to a folder; create it if it does not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
