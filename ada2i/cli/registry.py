"""Commands of the registry."""

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
from ada2i.cli.options import AsJson, Reference, Root, complete_model, path, target
from ada2i.cli.output import browse, facts, line, out
from ada2i.errors import ConfigError
from ada2i.registry.aliases import Move, aliases
from ada2i.registry.diff import Change, diff
from ada2i.registry.gc import sweep, sweep_features
from ada2i.registry.pull import pull
from ada2i.registry.references import resolve
from ada2i.registry.verify import verify
from ada2i.registry.versions import Version, check_known, models, read_file, version_uri, versions
from ada2i.store import DEFAULT_ROOT

app = typer.Typer(name="registry", no_args_is_help=True, help="Show registered versions, and choose which one is used.")


@app.command("list")
def registry_list(
    model: Annotated[str | None, typer.Argument(help="A model's name. Default: all models.")] = None,
    as_json: AsJson = False,
    root: Root = DEFAULT_ROOT,
) -> None:
    """List registered versions, oldest first, with their aliases."""
    if model is not None:
        check_known(root, model)
    found = [each for name in ([model] if model else models(root)) for each in _with_aliases(root, name)]
    if as_json:
        out.print_json(json.dumps([_record(*each) for each in found]))
    elif found:
        out.show(_version_table(found))
    else:
        line(f"No versions in {storage.normalise(root)}. `ada2i train` registers one.")


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
        scores = f"{version.dev_weighted_f1:.4f}", version.test_summary["weighted_f1"].text
        table.add_row(version.name, "\n".join(names), version.created[:10], version.preset, *scores)
    return table


@app.command("show")
def registry_show(
    reference: Reference,
    everything: Annotated[bool, typer.Option("--all", help="Also show all fields and files.")] = False,
    as_json: AsJson = False,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Show one version: its aliases, scores, dataset and origin."""
    found = resolve(root, reference)
    names = _names(aliases(root, found.model), found)
    if as_json:
        out.print_json(json.dumps(_record(found, names)))
        return
    scores = {f"test {score}": summary.text for score, summary in found.test_summary.items()}
    features = found.features
    out.print(
        facts(
            {
                "version": found.name,
                "aliases": ", ".join(names) or "none",
                "dev weighted F1": f"{found.dev_weighted_f1:.4f}",
                **scores,
                "dataset": features.dataset + ", SYNTHETIC" * features.synthetic,
                "classes": ", ".join(features.labels),
                "modalities": ", ".join(f"{name} {width}" for name, width in features.widths.items()),
                "trained": f"{found.created[:16].replace('T', ' ')} UTC, preset {found.preset}, run {found.run_id}",
                "location": version_uri(root, found),
            }
        )
    )
    if not everything:
        return
    out.print(facts(found.model_dump(mode="json", exclude={"files", "features", "test_summary"})))
    out.print(facts(features.model_dump(mode="json")))
    sizes = {name: f"{entry.size:>12,} bytes  sha256 {entry.sha256[:16]}…" for name, entry in found.files.items()}
    out.print(facts(sizes))


@app.command("open")
def registry_open(
    reference: Reference,
    to: Annotated[
        Path | None, typer.Option(callback=target, help="File to write. Default: one in the temporary folder.")
    ] = None,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Copy a version's report from the store, show it in the browser, and print the copy's path."""
    found = resolve(root, reference)
    browse(read_file(root, found, "report.html"), found.name, to)


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
    elif changes:
        out.show(_change_table(changes, a, b))
    else:
        line(f"{a} and {b} do not differ.")


def _change_table(changes: Iterable[Change], a: str, b: str) -> Table:
    table = Table("part", "field", a, b)
    for column in table.columns[1:]:
        column.overflow = "fold"
    for change in changes:
        values = [_shown(value) for value in (change.first, change.second)]
        if values[0] == values[1]:  # they differ after four digits
            values = [str(change.first), str(change.second)]
        table.add_row(change.part, change.field, *map(Text, values))
    return table


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_shown, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


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
    check_known(root, model)
    problems = verify(root, model, resolve(root, reference).number if at else None)
    if as_json:
        out.print_json(json.dumps([problem.model_dump() for problem in problems]))
    else:
        lines = [problem.message for problem in problems] or [f"{reference}: all files match their digests."]
        line("\n".join(lines))
    if problems:
        raise typer.Exit(2)


@app.command("pull")
def registry_pull(
    reference: Reference,
    folder: Annotated[Path, typer.Argument(parser=path, help="Target: a new or empty folder.")],
    root: Root = DEFAULT_ROOT,
) -> None:
    """Copy a version to a folder and check every file's digest; print the folder."""
    line(str(pull(root, reference, folder)))


@app.command("gc")
def registry_gc(
    model: Annotated[
        str | None,
        typer.Argument(help="A model's name. Default: remains of killed imports only.", autocompletion=complete_model),
    ] = None,
    older_than: Annotated[str, typer.Option(help="Keep remains that are younger than this: 30m, 12h, 1d, 2w.")] = "1d",
    versions_older_than: Annotated[
        str | None, typer.Option(help="Also delete versions at least this old that never had an alias. Default: none.")
    ] = None,
    as_json: AsJson = False,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Delete remains of killed imports and registrations and, on request, old versions; print what was deleted."""
    remains_age_s = seconds("--older-than", older_than)
    versions_age_s = None if versions_older_than is None else seconds("--versions-older-than", versions_older_than)
    if model is None and versions_age_s is not None:
        raise ConfigError("`--versions-older-than` needs a model, but none is named.", field="model")
    if model is None:
        deleted = sweep_features(root, older_than_s=remains_age_s)
    else:
        check_known(root, model)
        deleted = sweep(root, model, older_than_s=remains_age_s, versions_older_than_s=versions_age_s)
    if as_json:
        out.print_json(json.dumps(deleted))
    else:
        line("\n".join(deleted) or "Nothing to delete.")


app.add_typer(aliasing.app)
app.add_typer(gating.app)
