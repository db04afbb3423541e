"""The command that compares predictions with what their model was trained on."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from ada2i.cli.options import AsJson, Code, Root
from ada2i.cli.output import browse, line, out
from ada2i.store import DEFAULT_ROOT, Store

if TYPE_CHECKING:
    from ada2i.drift import Drift, Window

app = typer.Typer()

_SHOWN, _BAR = 12, 8  # statistics; characters up to the limit


@app.command()
def drift(
    version: Annotated[str, typer.Argument(help="MODEL@ALIAS, MODEL@NUMBER or MODEL.")],
    code: Code = None,
    as_json: AsJson = False,
    open_page: Annotated[bool, typer.Option("--open", help="Show the page about it in the browser.")] = False,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Compare the last 30 windows of a version with its training set; show the last one in detail.

    A window holds sums over one prediction, or over what an endpoint answered for some time. Limits come from the
    version's dev dialogues, so that a month of nights has a false alarm with a probability of 5 %.
    The first call predicts the training and dev splits. A page about the comparison is stored with the windows.
    """
    from ada2i import storage, usecases
    from ada2i.drift.windows import PAGE

    found, judged = usecases.drift(version, Store.open(root), own=tuple(code or ()))
    if as_json:
        out.print_json(json.dumps([_facts(window, result) for window, result in judged]))
        return
    if open_page:
        browse(storage.get(storage.join(Store.open(root).drift(found.model, found.number), PAGE)), found.name)
        return
    out.show(_windows(found.name, judged))
    out.show(_statistics(*judged[-1]))
    line(
        "psi: population stability index; shift: in standard deviations; psi.audio.3: of group 3 of the audio columns.",
        "dim",
    )


def _facts(window: "Window", result: "Drift") -> dict[str, Any]:
    facts = window.model_dump(mode="json", exclude={"sums", "schema_version"})
    return facts | {"drifted": result.drifted, **result.model_dump(mode="json")}


def _windows(name: str, judged: "list[tuple[Window, Drift]]") -> Table:
    table = Table("stored", "source", "dialogues", "above their limit", title=f"Windows of {name}")
    for window, result in judged:
        above = [statistic.name for statistic in result.statistics if statistic.exceeds]
        names = ", ".join(above[:3]) + f" and {len(above) - 3} more" * (len(above) > 3)
        created = window.created[:16].replace("T", " ")
        style = "bold red" if result.drifted else ""
        table.add_row(created, Text(window.source), f"{window.dialogues:,}", Text(names or "none", style))
    return table


def _statistics(window: "Window", result: "Drift") -> Table:
    table = Table("statistic", "value", "usual", "limit", "to limit", title=f"Last: {window.source}")
    for statistic in result.statistics[:_SHOWN]:
        filled = round(_BAR * min(max(statistic.share, 0.0), 2.0))
        bar = Text("█" * filled, "red" if statistic.exceeds else "green")
        numbers = (f"{number:.3f}" for number in (statistic.value, statistic.usual, statistic.limit))
        table.add_row(Text(statistic.name), *numbers, bar)
    return table
