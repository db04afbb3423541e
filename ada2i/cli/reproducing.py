"""The command that compares a grid of runs with the published numbers."""

from typing import Annotated

import typer

from ada2i.cli.options import Allow, AsJson, Features, OutFolder, Overrides, Root, count_seeds, parse_overrides
from ada2i.cli.output import print_record, show_wide
from ada2i.store import DEFAULT_ROOT, Store

app = typer.Typer()

_WIDE = 150  # characters per line if the output is not a terminal


@app.command()
def reproduce(  # noqa: PLR0917
    dataset: Annotated[str, typer.Argument(help="Name of published settings: iemocap, meld, mosei-2...")],
    features: Features,
    presets: Annotated[str, typer.Option(help="Variants of Ada2I, separated by commas.")] = "reference,paper,corrected",
    modalities: Annotated[str, typer.Option(help="all, or letters separated by commas: tav,ta,t.")] = "all",
    ablations: Annotated[str, typer.Option(help="none, all, or no_afw,no_amw,no_modulation.")] = "none",
    vary: Annotated[list[str] | None, typer.Option(help="FIELD=V1,V2: one more row per value; repeatable.")] = None,
    seeds: Annotated[str, typer.Option(help="A count, or a list such as 1,2,3.")] = "5",
    folds: Annotated[int, typer.Option(help="K folds of dialogues instead of the splits; 0: the splits.")] = 0,
    leave_out: Annotated[
        str,
        typer.Option(help="COLUMN: each group of dialogues is the test of a fold; of a feature set, speaker."),
    ] = "",
    also: Annotated[
        list[str] | None,
        typer.Option(
            help="Predictions from elsewhere: a table of dialogue_id, utterance_index, p_* or label; repeatable."
        ),
    ] = None,
    set_: Overrides = None,
    missing: Annotated[
        bool, typer.Option("--missing", help="Also print scores with missing modalities: subsets, and rates to 70 %.")
    ] = False,
    allow: Allow = None,
    out_: OutFolder = None,
    as_json: AsJson = False,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Train a grid of presets, modalities and ablations on Ray, and print the scores with the published numbers.

    Repeat an interrupted command to resume it.
    """
    from ada2i import usecases
    from ada2i.studies.request import StudySpec
    from ada2i.studies.table import terminal_study, write_tables
    from ada2i.terminal import TerminalHooks

    spec = StudySpec(
        dataset=dataset,
        features=features,
        presets=tuple(presets.split(",")),
        modalities=modalities,
        ablations=ablations,
        variations=tuple(vary or ()),
        seeds=count_seeds(seeds),
        overrides=parse_overrides(set_),
        allow=tuple(allow or ()),
        folds=folds,
        leave_out=leave_out,
        also=tuple(also or ()),
    )
    study = usecases.reproduce(spec, Store.open(root), hooks=TerminalHooks())
    if out_ is not None:
        write_tables(study, out_)
    if as_json:
        print_record(study)
    else:
        show_wide(terminal_study(study, missing=missing), _WIDE)
