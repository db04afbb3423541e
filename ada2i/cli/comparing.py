"""The command that compares two versions on the same dialogues."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ada2i.cli.options import AsJson, Root
from ada2i.cli.output import line, out
from ada2i.display import count
from ada2i.store import DEFAULT_ROOT, Store

if TYPE_CHECKING:
    from ada2i.evaluation.compare import Comparison

app = typer.Typer()


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="A version, such as MODEL@1, or a table of predictions from elsewhere.")],
    second: Annotated[
        str,
        typer.Argument(
            help="A version or table to compare with it, on the same test split. A table has "
            "dialogue_id, utterance_index, and p_CLASS of each class, or label."
        ),
    ],
    as_json: AsJson = False,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Test which of two versions, or of a version and predictions from elsewhere, is better on the test split."""
    from ada2i import usecases

    comparison = usecases.compare(first, second, Store.open(root))
    if as_json:
        out.print_json(comparison.model_dump_json())
    else:
        show_comparison(comparison)


def show_comparison(comparison: "Comparison") -> None:
    """Print the table of differences, and how to read it."""
    from ada2i.evaluation.compare import verdict
    from ada2i.reports.report import SYNTHETIC_NOTE

    table = Table("test", "A", "B", "B - A", "95 % interval", "p boot", "p swap")
    for score, found in comparison.differences.items():
        table.add_row(
            {"weighted_f1": "wF1", "macro_f1": "macro F1"}.get(score, score),
            f"{found.first:.4f}",
            f"{found.second:.4f}",
            f"{found.difference:+.4f}",
            f"{found.interval.low:.4f} to {found.interval.high:.4f}",
            f"{found.p_bootstrap:.4f}",
            f"{found.p_randomisation:.4f}",
        )
    title = f"A: {comparison.first}, B: {comparison.second}" + " (SYNTHETIC)" * comparison.synthetic
    line(title, "bold")
    out.show(table)
    line(verdict(comparison))
    note = (
        f"{count(comparison.dialogues, 'test dialogue')}, {count(comparison.utterances, 'utterance')}; the two predict "
        f"different classes for {comparison.changed}. "
        f"boot: {comparison.rounds} resamples of dialogues; swap: as many rounds of swapping "
        "the two in random dialogues. The tests compare two trained models; models of other seeds may differ by more."
    )
    line(note, "dim")
    if comparison.synthetic:
        line(SYNTHETIC_NOTE, "bold red")
