"""Registry commands that move aliases and show their history."""

import getpass
import json
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ada2i.cli.options import AsJson, Model, Reference, Root
from ada2i.cli.output import line, out
from ada2i.errors import ConfigError
from ada2i.registry import aliases
from ada2i.registry.aliases import CHAMPION, Move
from ada2i.registry.references import resolve
from ada2i.registry.versions import check_known
from ada2i.store import DEFAULT_ROOT

app = typer.Typer()


def user() -> str:
    """Return the name of the current user, for the alias's history.

    Raises:
        ConfigError: The operating system has no name for this user.
    """
    try:
        return getpass.getuser()
    except (KeyError, OSError) as problem:  # for example in a container whose user has no name
        raise ConfigError(
            "`--by` must name who moves the alias, because this user has no name here. Write for example `--by anna`.",
            field="--by",
        ) from problem


Alias = Annotated[str, typer.Option(help="Which alias.")]
Reason = Annotated[str, typer.Option(help="Why the alias is moved; kept in its history.")]
By = Annotated[str, typer.Option(default_factory=user, help="Who moves the alias; kept in its history. Default: you.")]


@app.command()
def history(model: Model, alias: Alias = CHAMPION, as_json: AsJson = False, root: Root = DEFAULT_ROOT) -> None:
    """Show every move of an alias, oldest first: which version, when, by whose decision and why."""
    check_known(root, model)
    moves = aliases.history(root, model, alias)
    if as_json:
        out.print_json(json.dumps([move.model_dump(mode="json") for move in moves]))
    elif moves:
        out.show(_move_table(moves))
    else:
        line(f"{model}@{alias} has never pointed to a version.")


def _move_table(moves: list[Move]) -> Table:
    table = Table("at (UTC)", "what", "version", "by", "reason")
    for move in moves:
        table.add_row(move.at[:16].replace("T", " "), move.kind, str(move.number), Text(move.by), Text(move.reason))
    return table


@app.command()
def promote(
    reference: Reference,
    *,
    reason: Reason,
    by: By,
    alias: Alias = CHAMPION,
    expected: Annotated[
        int | None,
        typer.Option(min=0, help="Number of the version that must have the alias now, 0 for none. Default: any."),
    ] = None,
    as_json: AsJson = False,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Move an alias to a version; fail if another process moves it at the same time."""
    found = resolve(root, reference)
    holder = _holder(root, found.model, alias) if expected is None else expected
    before = aliases.current(root, found.model, alias)
    moved = aliases.move(root, found.model, alias, found.number, expected=holder or None, by=by, reason=reason)
    _show_move(moved, as_json=as_json, made=moved != before)


def _holder(root: str, model: str, alias: str) -> int:
    """Return the number of the version that has an alias, or 0 if no version has it."""
    last = aliases.current(root, model, alias)
    return last.number if last else 0


@app.command()
def rollback(
    model: Model,
    *,
    reason: Reason,
    by: By,
    alias: Alias = CHAMPION,
    expected: Annotated[
        int | None, typer.Option(min=1, help="Number of the version that must have the alias now. Default: any.")
    ] = None,
    as_json: AsJson = False,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Move an alias back to the version that had it before the current one was promoted."""
    _show_move(aliases.rollback(root, model, alias, by=by, reason=reason, expected=expected), as_json=as_json)


def _show_move(move: Move, *, as_json: bool, made: bool = True) -> None:
    if as_json:
        out.print_json(move.model_dump_json())
        return
    text = f"Moved: {move.model}@{move.alias} {move.before or 'none'} -> {move.number} (move {move.n})."
    if not made:
        text = f"Not moved: {move.model}@{move.alias} points to version {move.number} already (move {move.n})."
    line(text)
