"""Registry commands that judge a version against the one in use, and show earlier verdicts."""

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from ada2i.cli.aliasing import Alias, By
from ada2i.cli.options import AsJson, Code, Model, Reference, Root, parse_overrides
from ada2i.cli.output import line, out
from ada2i.errors import NotFoundError
from ada2i.jobs import code as methods
from ada2i.registry.aliases import CHAMPION, current
from ada2i.registry.references import resolve
from ada2i.registry.verdicts import Judgement, Verdict
from ada2i.registry.verdicts import verdicts as find_verdicts
from ada2i.registry.versions import check_known
from ada2i.store import DEFAULT_ROOT, Store

if TYPE_CHECKING:
    from ada2i.usecases import Outcome

app = typer.Typer()


@app.command()
def gate(
    reference: Reference,
    *,
    by: By,
    promote: Annotated[
        bool,
        typer.Option("--promote", help="Store the verdict, and move the alias to the version if the rules allow it."),
    ] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="RULE=VALUE, such as margin=0.01; repeatable.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Judge it even if it was judged with other rules or was rolled back.")
    ] = False,
    alias: Alias = CHAMPION,
    code: Code = None,
    as_json: AsJson = False,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Test a version against the champion; exit with 1 if it is refused."""
    rules = parse_overrides(set_)
    held = False
    if promote:
        from ada2i import usecases

        outcome = usecases.promote(
            reference,
            Store.open(root),
            gate=usecases.Gate(rules, by=by, code=tuple(code or ())),
            hooks=usecases.Hooks(),
            alias=alias,
            again=again,
        )
        if outcome.verdict is None:
            typer.echo(outcome.reason, err=True)
            return
        found, held = outcome.verdict.judgement, outcome.held is not None
        last = what_moved(root, outcome, alias)
    else:
        from ada2i.promotion.gate import dry_run, resolve_rules

        with methods.named(methods.digests(code or ())):
            found = dry_run(root, resolve(root, reference), resolve_rules(rules), by=by, alias=alias)
        last = (
            f"Dry run: {alias} stays {_place(found.champion)}. `--promote` stores the verdict and moves it if allowed."
        )
    if as_json:
        out.print_json(found.model_dump_json())
    else:
        _show(found, moved=held)
        line(last)
    if found.decision == "refuse" and not held:
        raise typer.Exit(1)


def what_moved(root: str, outcome: "Outcome", alias: str = CHAMPION) -> str:
    """Return one line about whether the alias was moved."""
    version, held = outcome.version, outcome.held
    if held is not None and outcome.moved:
        return f"Moved: {alias} {held.before or 'none'} -> {held.number} (move {held.n})."
    if held is not None:
        return f"Not moved: {version.name} is {alias} already (move {held.n})."
    last = current(root, version.model, alias)
    return f"Not moved: {alias} stays {_place(last.number if last else None)}."


def _place(number: int | None) -> str:
    return f"at version {number}" if number else "without a version"


def _show(found: Judgement, *, moved: bool) -> None:
    from ada2i.promotion.page import headline, protocol
    from ada2i.reports.report import SYNTHETIC_NOTE

    table = Table("rule", "passed", "what was found")
    for result in found.results:
        table.add_row(result.rule, "yes" if result.passed else Text("NO", "bold red"), Text(result.says))
    out.show(table)
    line(headline(found, moved=moved), "bold")
    line(protocol(found), "dim")
    if found.synthetic:
        line(SYNTHETIC_NOTE, "bold red")


@app.command()
def verdicts(
    model: Model,
    whole: Annotated[int | None, typer.Option("--page", help="Show this verdict in full, as markdown.")] = None,
    as_json: AsJson = False,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Show every stored verdict, oldest first: which version, against which, and why."""
    check_known(root, model)
    found = find_verdicts(root, model)
    if whole is not None:
        _show_page(model, found, whole)
    elif as_json:
        out.print_json(json.dumps([verdict.model_dump(mode="json") for verdict in found]))
    elif found:
        out.show(_table(found))
    else:
        line(f"No version of {model} has been judged.")


def _show_page(model: str, found: list[Verdict], n: int) -> None:
    from ada2i.promotion.page import page

    if not 1 <= n <= len(found):
        raise NotFoundError(f"{model} must have a verdict {n}, but has {len(found)}. `registry verdicts` lists them.")
    line(page(found[n - 1].judgement))


def _table(found: list[Verdict]) -> Table:
    table = Table("n", "at (UTC)", "version", "against", "verdict", "why")
    for verdict in found:
        judged = verdict.judgement
        why = "; ".join(judged.failures) or judged.facts
        decision = f"{judged.decision} as {judged.alias}"
        numbers = str(judged.challenger), str(judged.champion or "none")
        table.add_row(str(verdict.n), verdict.at[:16].replace("T", " "), *numbers, decision, Text(why))
    return table
