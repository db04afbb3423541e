"""What commands print: the console, and the parts that several of them show."""

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from ada2i.records import Summary
    from ada2i.registry.versions import Version

out = Console()


def version_name(version: "Version") -> str:
    """Return ``MODEL@NUMBER``."""
    return f"{version.model}@{version.number}"


def mean_text(summary: "Summary") -> str:
    """Return a score over seeds: its mean, and its deviation where there is one."""
    return f"{summary.mean:.4f}" + (f" ± {summary.sd:.4f}" if summary.sd is not None else "")


def facts(values: dict[str, Any]) -> Table:
    """Return a table of names and values."""
    table = Table(show_header=False, box=None)
    for key, value in values.items():
        table.add_row(Text(key, "bold"), Text(str(value), overflow="fold"))
    return table
