"""The command that scores simple models, which a trained model must exceed."""

import json
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ada2i.cli.options import AsJson, Modalities, Root
from ada2i.cli.output import line, out
from ada2i.records import Baseline
from ada2i.store import DEFAULT_ROOT, Store

app = typer.Typer()


@app.command()
def baseline(
    features: Annotated[str, typer.Argument(help="`demo`, a feature set, or a table to import.")],
    modalities: Modalities = None,
    as_json: AsJson = False,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Score the majority class and linear models on test: the floor that a trained model must exceed."""
    from ada2i import presets, usecases

    requested = presets.parse_modalities(modalities) if modalities else ()
    rows = usecases.baseline(features, Store.open(root), requested)
    if as_json:
        out.print_json(json.dumps([row.model_dump(mode="json") for row in rows]))
        return
    out.show(baseline_rows(rows))
    line("Linear: logistic regression on vectors and decayed means of their context; L2 is chosen on dev.", "dim")


def baseline_rows(rows: tuple[Baseline, ...]) -> Table:
    """Return a table of baselines."""
    table = Table("baseline", "dev wF1", "test wF1", "95 % interval", "macro F1", "accuracy", title="Baselines on test")
    for row in rows:
        interval = f"{row.interval.low:.4f} to {row.interval.high:.4f}" if row.interval else ""
        dev = "" if row.dev_weighted_f1 is None else f"{row.dev_weighted_f1:.4f}"
        scores = (f"{row.macro_f1:.4f}", f"{row.accuracy:.4f}")
        table.add_row(Text(row.name), dev, f"{row.weighted_f1:.4f}", interval, *scores)
    return table
