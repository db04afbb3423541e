"""Commands that show registered versions, copy them and delete abandoned ones."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from ada2i import storage
from ada2i.cli import aliasing, gating
from ada2i.cli.durations import seconds
from ada2i.cli.options import AsJson, Model, Reference, Root, path
from ada2i.cli.output import facts, mean_text, out
from ada2i.registry.aliases import Move, aliases
from ada2i.registry.diff import Change, diff
from ada2i.registry.gc import sweep
from ada2i.registry.pull import pull
from ada2i.registry.references import resolve
from ada2i.registry.verify import verify
from ada2i.registry.versions import Version, models, version_uri, versions
from ada2i.store import DEFAULT_ROOT

app = typer.Typer(name="registry", no_args_is_help=True, help="Show registered versions, and choose which one is used.")


@app.command("list")
def registry_list(
    model: Annotated[str | None, typer.Argument(help="A model's name. Default: all models.")] = None,
    as_json: AsJson = False,
    root: Root = DEFAULT_ROOT,
) -> None:
    """List registered versions, oldest first, with their aliases."""
    found = [each for name in ([model] if model else models(root)) for each in _with_aliases(root, name)]
    if as_json:
        out.print_json(json.dumps([_record(*each) for each in found]))
    else:
        out.print(_version_table(found) if found else f"No versions in {storage.normalise(root)}.")


def _with_aliases(root: str, model: str) -> Iterator[tuple[Version, list[str]]]:
    """Yield each version of a model with the aliases that it has."""
    moves = aliases(root, model)
    for version in versions(root, model):
        yield version, _names(moves, version)


def _names(moves: Mapping[str, Move], version: Version) -> list[str]:
    return [alias for alias, move in moves.items() if move.number == version.number]


def _record(version: Version, names: list[str]) -> dict[str, Any]:
    return version.model_dump(mode="json") | {"aliases": names}


def _version_table(found: Iterable[tuple[Version, list[str]]]) -> Table:
    # Without lines and padding, so that all columns fit into 80 characters.
    table = Table("version", "alias", "created", "preset", "dev wF1", "test wF1", box=box.SIMPLE_HEAD, padding=0)
    table.show_edge = False
    table.columns[0].overflow = "fold"
    table.columns[0].min_width = 24
    for version, names in found:
        scores = f"{version.dev_weighted_f1:.4f}", mean_text(version.test_summary["weighted_f1"])
        table.add_row(version.name, "\n".join(names), version.created[:10], version.preset, *scores)
    return table


@app.command("show")
def registry_show(reference: Reference, as_json: AsJson = False, root: Root = DEFAULT_ROOT) -> None:
    """Show one version: its origin, aliases, scores and files."""
    found = resolve(root, reference)
    names = _names(aliases(root, found.model), found)
    if as_json:
        out.print_json(json.dumps(_record(found, names)))
        return
    own = found.model_dump(mode="json", exclude={"files", "features", "test_summary"})
    out.print(facts(own | {"aliases": ", ".join(names) or "none", "uri": version_uri(root, found)}))
    out.print(facts(found.features.model_dump(mode="json")))
    out.print(facts({score: mean_text(summary) for score, summary in found.test_summary.items()}))
    sizes = {name: f"{entry.size:>12,} bytes  sha256 {entry.sha256[:16]}…" for name, entry in found.files.items()}
    out.print(facts(sizes))


@app.command("diff")
def registry_diff(
    first: Reference,
    second: Annotated[str, typer.Argument(help="Another version.")],
    as_json: AsJson = False,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Show the differences between two versions: config, features, scores, code and packages."""
    a, b = (resolve(root, reference).name for reference in (first, second))
    changes = diff(root, a, b)
    if as_json:
        out.print_json(json.dumps([change.model_dump(mode="json") for change in changes]))
    else:
        out.print(_change_table(changes, a, b) if changes else f"{a} and {b} do not differ.")


def _change_table(changes: Iterable[Change], a: str, b: str) -> Table:
    table = Table("part", "field", a, b)
    for column in table.columns[1:]:
        column.overflow = "fold"
    for change in changes:
        values = ("" if value is None else str(value) for value in (change.first, change.second))
        table.add_row(change.part, change.field, *map(Text, values))
    return table


@app.command("verify")
def registry_verify(
    reference: Annotated[
        str, typer.Argument(help="MODEL for all its versions and aliases, or MODEL@ALIAS or MODEL@NUMBER.")
    ],
    as_json: AsJson = False,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Check every file against its recorded digest; exit with 2 if a file is damaged or missing."""
    model, at, _ = reference.partition("@")
    problems = verify(root, model, resolve(root, reference).number if at else None)
    if as_json:
        out.print_json(json.dumps([problem.model_dump() for problem in problems]))
    else:
        lines = [problem.message for problem in problems] or [f"{reference}: all files match their digests."]
        out.print("\n".join(lines), soft_wrap=True, markup=False, highlight=False)
    if problems:
        raise typer.Exit(2)


@app.command("pull")
def registry_pull(
    reference: Reference,
    folder: Annotated[Path, typer.Argument(parser=path, help="Target: a new or empty folder.")],
    root: Root = DEFAULT_ROOT,
) -> None:
    """Copy a version to a folder and check every file's digest; print the folder."""
    out.print(str(pull(root, reference, folder)), soft_wrap=True, markup=False, highlight=False)


@app.command("gc")
def registry_gc(
    model: Model,
    older_than: Annotated[
        str, typer.Option(help="Keep remains of killed registrations that are younger than this: 30m, 12h, 1d, 2w.")
    ] = "1d",
    versions_older_than: Annotated[
        str | None, typer.Option(help="Also delete versions at least this old that never had an alias. Default: none.")
    ] = None,
    as_json: AsJson = False,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Delete remains of killed registrations and, on request, old versions; print what was deleted."""
    young = seconds("--older-than", older_than)
    old = None if versions_older_than is None else seconds("--versions-older-than", versions_older_than)
    deleted = sweep(root, model, older_than_s=young, versions_older_than_s=old)
    if as_json:
        out.print_json(json.dumps(deleted))
    else:
        out.print("\n".join(deleted) or "Nothing to delete.", soft_wrap=True, markup=False, highlight=False)


app.add_typer(aliasing.app)
app.add_typer(gating.app)
