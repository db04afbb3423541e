"""The command that searches for a config."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ada2i import storage
from ada2i.cli.options import (
    Allow,
    Features,
    JsonFile,
    Modalities,
    NewModel,
    OutFolder,
    Overrides,
    Preset,
    Root,
    Settings,
    count_seeds,
    parse_overrides,
)
from ada2i.cli.output import show_wide, write_json
from ada2i.cli.running import interruptible, run_job
from ada2i.jobs import logs
from ada2i.training.request import DEFAULT_ROOT, TrainSpec, with_named

if TYPE_CHECKING:
    from ada2i.search.records import SearchOutcome

app = typer.Typer()

_WIDE = 200  # characters of a line where no terminal says how many it has


@app.command()
def tune(  # noqa: PLR0917
    features: Features,
    preset: Preset = "corrected",
    settings: Settings = None,
    modalities: Modalities = "tav",
    space: Annotated[Path | None, typer.Option(help="JSON or TOML file: by config field, what to draw from.")] = None,
    vary: Annotated[
        list[str] | None, typer.Option(help="FIELD=V1,V2 or FIELD=uniform|loguniform|int:LOW:HIGH; repeatable.")
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Configs to try. Default: 20.")] = None,
    concurrent: Annotated[int | None, typer.Option(help="Trials at a time. Default: what the cluster holds.")] = None,
    trial_seeds: Annotated[int | None, typer.Option(help="Seeds of a trial. Default: 1.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of trials and finals. Default: the config's.")] = None,
    grace: Annotated[int | None, typer.Option(help="Epochs before ASHA stops a trial. Default: a fifth.")] = None,
    reduction: Annotated[int | None, typer.Option(help="ASHA lets one in so many go on. Default: 3.")] = None,
    finalists: Annotated[int | None, typer.Option(help="Best trials to train again. Default: 3.")] = None,
    seeds: Annotated[str, typer.Option(help="Of the finals: how many, or which: 1,2,3.")] = "3",
    search_seed: Annotated[int | None, typer.Option(help="Of the search's own draws. Default: 0.")] = None,
    workers: Annotated[int, typer.Option(help="Training workers of each trial.")] = 1,
    set_: Overrides = None,
    model: NewModel = None,
    json_: JsonFile = None,
    out_: OutFolder = None,
    allow: Allow = None,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Search for a config on dev, train the best and the given one again, and register the winner.

    Repeating the command goes on where it was cut short.
    """
    from ada2i.search.request import SearchSpec, prepare_search, search_options
    from ada2i.search.space import read_space

    named = {"training.epochs": epochs, "training.seeds": list(count_seeds(seeds)), "resources.workers": workers}
    spec = SearchSpec(
        spec=TrainSpec(
            features=features,
            preset=preset,
            settings=settings,
            modalities=modalities,
            overrides=with_named(parse_overrides(set_), named),
            allow=tuple(allow or ()),
        ),
        space=read_space(space) if space else {},
        vary=tuple(vary or ()),
        options=search_options(
            trials=trials,
            concurrent=concurrent,
            trial_seeds=trial_seeds,
            grace=grace,
            reduction=reduction,
            finalists=finalists,
            seed=search_seed,
        ),
    )
    uri = prepare_search(spec, root=root)
    _search(uri)
    outcome = _conclude(uri, model=model, root=root)
    if out_ is not None:
        _write(outcome, out_)
    write_json(json_, outcome)


def _search(uri: str) -> None:
    """Have a search's job done, where it is not."""
    from ada2i.search.progress import TuneProgress
    from ada2i.search.request import JOB, REQUEST, SearchRequest, is_done

    if is_done(uri):
        return
    request = SearchRequest.load(storage.join(uri, REQUEST))
    again = "if it is cut short, the same command goes on from there."
    logs.notes().print(f"{request.search_id}: {again}", markup=False)
    with interruptible():
        run_job(JOB, uri, TuneProgress(request.run.config.training.epochs))


def _conclude(uri: str, *, model: str | None, root: str) -> "SearchOutcome":
    """Test and register the winner, show it, and keep tables and picture beside the search."""
    from ada2i.cli.training import show_result
    from ada2i.records import run_uri
    from ada2i.registry.versions import register
    from ada2i.search.records import SearchOutcome, SearchResult
    from ada2i.search.report import search_files, terminal_search
    from ada2i.search.request import RESULT
    from ada2i.training.evaluate import evaluate_run

    found = SearchResult.load(storage.join(uri, RESULT))
    run = run_uri(storage.normalise(root), found.run_id)
    result = evaluate_run(run)
    version = register(run, root=root, model=model).name
    outcome = SearchOutcome(search=found, version=version, test_summary=result.test_summary)
    for name, data in search_files(outcome).items():
        storage.put(storage.join(uri, name), data)
    show_wide(terminal_search(found), _WIDE)
    show_result(result, version)
    return outcome


def _write(outcome: "SearchOutcome", folder: Path) -> None:
    from ada2i.search.report import search_files

    folder.mkdir(parents=True, exist_ok=True)
    for name, data in search_files(outcome).items():
        (folder / name).write_bytes(data)
