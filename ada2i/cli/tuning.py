"""The command that searches for a config."""

from pathlib import Path
from typing import Annotated

import typer

from ada2i.cli.options import (
    Allow,
    AsJson,
    Features,
    Modalities,
    NewModel,
    OutFolder,
    Overrides,
    Preset,
    Root,
    Settings,
    count_seeds,
    train_spec,
)
from ada2i.cli.output import print_record, show_wide, write_files
from ada2i.store import DEFAULT_ROOT, Store

app = typer.Typer()

_WIDE = 200  # characters per line if the output is not a terminal


@app.command()
def tune(  # noqa: PLR0917
    features: Features,
    preset: Preset = "corrected",
    settings: Settings = None,
    modalities: Modalities = None,
    space: Annotated[Path | None, typer.Option(help="JSON or TOML file: what to draw for each config field.")] = None,
    vary: Annotated[
        list[str] | None, typer.Option(help="FIELD=V1,V2 or FIELD=uniform|loguniform|int:LOW:HIGH; repeatable.")
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Configs to try. Default: 20.")] = None,
    concurrent: Annotated[
        int | None, typer.Option(help="Concurrent trials. Default: as many as the cluster has CPUs for.")
    ] = None,
    trial_seeds: Annotated[int | None, typer.Option(help="Seeds per trial. Default: 1.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of each trial and final. Default: the config's.")] = None,
    grace: Annotated[int | None, typer.Option(help="Epochs before ASHA may stop a trial. Default: a fifth.")] = None,
    reduction: Annotated[int | None, typer.Option(help="Reduction factor of ASHA. Default: 3.")] = None,
    finalists: Annotated[int | None, typer.Option(help="Best trials to train again. Default: 3.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of the finals: a count, or a list such as 1,2,3.")] = "3",
    search_seed: Annotated[int | None, typer.Option(help="Seed of the suggestions. Default: 0.")] = None,
    workers: Annotated[int, typer.Option(help="Training workers of each trial.")] = 1,
    set_: Overrides = None,
    model: NewModel = None,
    as_json: AsJson = False,
    out_: OutFolder = None,
    allow: Allow = None,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Search for a config on dev, retrain the best configs and the given one, and register the winner.

    Repeat an interrupted command to resume it.
    """
    from ada2i import usecases
    from ada2i.cli.training import show_result
    from ada2i.search.report import search_files, terminal_search
    from ada2i.search.request import SearchSpec, search_options
    from ada2i.search.space import read_space
    from ada2i.terminal import TerminalHooks

    named = {"training.epochs": epochs, "training.seeds": list(count_seeds(seeds)), "resources.workers": workers}
    base = train_spec(features, preset, settings, modalities, overrides=set_, named=named, allow=allow)
    options = search_options(
        trials=trials,
        concurrent=concurrent,
        trial_seeds=trial_seeds,
        grace=grace,
        reduction=reduction,
        finalists=finalists,
        seed=search_seed,
    )
    spec = SearchSpec(spec=base, space=read_space(space) if space else {}, vary=tuple(vary or ()), options=options)
    found, outcome = usecases.search(spec, Store.open(root), hooks=TerminalHooks(), model=model)
    if out_ is not None:
        write_files(out_, search_files(found))
    if as_json:
        print_record(found)
        return
    show_wide(terminal_search(found.search), _WIDE)
    if outcome.result is not None:
        show_result(outcome.result, outcome.version.name)
