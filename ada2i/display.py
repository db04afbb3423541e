"""Text for people in a terminal: consoles on which text from data is shown unchanged, tables, and counts of nouns."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

_NARROW = 100  # columns; in narrower terminals, a table that does not fit is shown as records
_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(9), *range(11, 32), *range(127, 160))}


class PlainConsole(Console):
    """A console that reads no markup in text, and shows control characters as escapes.

    File names, labels and messages may contain square brackets or terminal sequences; they are data.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Render text with control characters escaped; Rich itself drops some of them."""
        return super().render_str(text.translate(_ESCAPES), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render with control characters escaped."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(segment.text.translate(_ESCAPES), segment.style)

    def show(self, table: Table) -> None:
        """Print a table; in a narrow terminal into which it does not fit, print each row as a record."""
        needed = self.measure(table, options=self.options.update(max_width=10 * _NARROW)).maximum
        if self.width >= _NARROW or needed <= self.width:
            self.print(table)
            return
        if table.title:
            self.print(table.title, style="italic")
        heads = [str(column.header) for column in table.columns]
        for row in zip(*(column.cells for column in table.columns), strict=True):
            record = Table.grid(padding=(0, 2))
            for head, cell in zip(heads, row, strict=True):
                record.add_row(Text(head, "bold"), cell)
            self.print(record)
            self.print()


def table_of(caption: str, rows: Sequence[Mapping[str, object]]) -> Table:
    """Return a table whose heads are the keys of its rows, without lines, so that many columns fit into a terminal."""
    table = Table(*rows[0], title=caption, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.show_edge = False
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row.values()))
    return table


def count(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless the number is 1."""
    if number == 1:
        return f"1 {noun}"
    ending = "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{ending}"


def similar(name: str, known: Iterable[str]) -> str:
    """Return the sentence `` Did you mean X?`` for the most similar known name, or an empty text."""
    found = get_close_matches(name, list(known), n=1)
    return f" Did you mean {found[0]}?" if found else ""
