"""The command that measures a grid of runs beside what the paper prints."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ada2i import presets as known
from ada2i import storage
from ada2i.cli.options import Root, check_folder, check_target, parse_seeds
from ada2i.cli.output import out
from ada2i.jobs import logs
from ada2i.training.request import DEFAULT_ROOT

if TYPE_CHECKING:
    from ada2i.evaluation.study_rows import Cell

app = typer.Typer()

_WIDE = 150  # characters of a line where no terminal says how many it has


@app.command()
def reproduce(  # noqa: PLR0917
    dataset: Annotated[str, typer.Argument(help="Whose settings and published numbers: iemocap, meld, mosei-2...")],
    features: Annotated[str, typer.Argument(help="A feature set, a table to import, or `demo`.")],
    presets: Annotated[str, typer.Option(help="Which Ada2I, separated by commas.")] = ",".join(known.PRESETS),
    modalities: Annotated[str, typer.Option(help="all, or letters separated by commas: tav,ta,t.")] = "all",
    ablations: Annotated[str, typer.Option(help="none, all, or no_afw,no_amw,no_modulation.")] = "none",
    vary: Annotated[list[str] | None, typer.Option(help="FIELD=V1,V2: a row more for each value; repeatable.")] = None,
    seeds: Annotated[str, typer.Option(help="How many, or which: 1,2,3.")] = "5",
    set_: Annotated[list[str] | None, typer.Option("--set", help="FIELD=VALUE, for every row; repeatable.")] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="Code of an audit's finding to train in spite of; repeatable.")
    ] = None,
    out_: Annotated[Path | None, typer.Option("--out", help="Folder for table.md, .csv, .json and plot.png.")] = None,
    json_: Annotated[Path | None, typer.Option("--json", help="Also write the result there.")] = None,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Train subsets of modalities by presets by changes on Ray, and print them beside the published numbers.

    Repeating the command goes on where it was cut short.
    """
    from ada2i.evaluation.study_rows import gather
    from ada2i.evaluation.study_table import terminal_study, write_tables
    from ada2i.training.study import StudyWish, prepare_study

    check_target("--json", json_)
    check_folder(out_)
    wish = StudyWish(
        dataset=dataset,
        features=features,
        presets=tuple(presets.split(",")),
        modalities=modalities,
        ablations=ablations,
        variations=tuple(vary or ()),
        seeds=parse_seeds(seeds),
        overrides=dict(known.parse_override(text) for text in set_ or []),
        allow=tuple(allow or ()),
    )
    prepared = prepare_study(wish, root=root)
    problems = _train(prepared.cells, root)
    study = gather(
        root=storage.normalise(root),
        dataset=dataset,
        settings=prepared.settings,
        features=prepared.features,
        cells=prepared.cells,
        problems=problems,
    )
    wide = out if out.is_terminal else Console(width=_WIDE)
    for part in terminal_study(study):
        wide.print(part)
    if out_ is not None:
        write_tables(study, out_)
    if json_ is not None:
        json_.write_bytes(study.to_json())


def _train(cells: "tuple[Cell, ...]", root: str) -> dict[str, str]:
    """Train and evaluate what has no result yet; return why runs failed, by their ids."""
    from ada2i.jobs import client
    from ada2i.jobs.cluster import cluster
    from ada2i.training.study import JOB, write_study
    from ada2i.training.study_progress import StudyProgress

    uri = write_study(root, cells)
    if uri is None:
        return {}
    notes = logs.notes()
    try:
        with cluster() as ray, StudyProgress(cells) as progress:
            client.run(client.Job(JOB, uri), address=ray.address, on_event=progress)
    except KeyboardInterrupt:
        notes.print("Interrupted; what was started has been stopped. The same command goes on from here.")
        raise
    return progress.problems
