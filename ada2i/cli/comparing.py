"""The command that compares two versions on the same dialogues."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ada2i.cli.options import AsJson, Reference, Root
from ada2i.cli.output import line, out
from ada2i.display import count
from ada2i.store import DEFAULT_ROOT, Store

if TYPE_CHECKING:
    from ada2i.evaluation.compare import Comparison

app = typer.Typer()


@app.command()
def compare(
    first: Reference,
    second: Annotated[str, typer.Argument(help="Another version, tested on the same dialogues.")],
    as_json: AsJson = False,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Test whether one of two registered versions is significantly better on the test split."""
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
        both, ps = (found.first, found.second), (found.p_bootstrap, found.p_randomisation)
        interval = f"{found.interval.low:.4f} to {found.interval.high:.4f}"
        cells = [f"{value:.4f}" for value in both], [f"{p:.4f}" for p in ps]
        label = {"weighted_f1": "wF1", "macro_f1": "macro F1"}.get(score, score)
        table.add_row(label, *cells[0], f"{found.difference:+.4f}", interval, *cells[1])
    title = f"A: {comparison.first}, B: {comparison.second}" + " (SYNTHETIC)" * comparison.synthetic
    line(title, "bold")
    out.show(table)
    line(verdict(comparison))
    note = (
        f"{count(comparison.dialogues, 'test dialogue')}, {count(comparison.utterances, 'utterance')}; the two predict "
        f"different classes for {comparison.changed}. "
        f"boot: {comparison.rounds} resamples of dialogues; swap: as many rounds of swapping "
        "the two in random dialogues. This is about two trained models; other seeds may differ by more."
    )
    line(note, "dim")
    if comparison.synthetic:
        line(SYNTHETIC_NOTE, "bold red")
