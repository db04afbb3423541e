"""Text from data in a terminal: shown as it is, whatever it contains."""

import io

import pytest
from rich.table import Table

from ada2i.display import PlainConsole, count, similar

HOSTILE = [
    "[/x]",
    "[laughter]",
    "calls [day 1].parquet",
    "[/bold]\\[/x]",
    "\x1b]0;title\x07",
    "a\x9bb",
    "[link=x]y[/link]",
]


def shown(text: str, width: int = 200) -> str:
    """Return what a console prints for a cell, a title and a line of text."""
    file = io.StringIO()
    console = PlainConsole(file=file, width=width)
    table = Table("name", text, title=text)
    table.add_row("label", text)
    console.show(table)
    console.print(text, soft_wrap=True)
    return file.getvalue()


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("width", [200, 30])
def test_text_of_data_is_no_markup_and_sends_no_control_characters(text: str, width: int) -> None:
    lines = shown(text, width)
    escaped = text.replace("\x1b", "\\x1b").replace("\x07", "\\x07").replace("\x9b", "\\x9b")
    assert lines.count(escaped.split(" ")[0]) >= 3
    assert not set(lines) & {"\x1b", "\x07", "\x9b"}


def test_a_table_that_does_not_fit_into_a_narrow_terminal_becomes_records() -> None:
    file = io.StringIO()
    console = PlainConsole(file=file, width=60)
    table = Table("model", "a long column", "another long column", "the last one")
    table.add_row("m@1", "x" * 30, "y" * 30, "z")
    console.show(table)
    text = file.getvalue()
    assert "x" * 30 in text
    assert "…" not in text
    assert [line.split()[0] for line in text.splitlines() if line.strip()] == ["model", "a", "another", "the"]


def test_counts_have_the_right_plural() -> None:
    assert [count(n, "utterance") for n in (0, 1, 2)] == ["0 utterances", "1 utterance", "2 utterances"]
    assert [count(2, noun) for noun in ("class", "epoch", "test dialogue")] == [
        "2 classes",
        "2 epochs",
        "2 test dialogues",
    ]


def test_similar_names_are_suggested() -> None:
    assert similar("champoin", ["champion", "staging"]) == " Did you mean champion?"
    assert similar("x", ["champion"]) == ""
