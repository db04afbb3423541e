"""Commands that resolve a config and train with it."""

from typing import Annotated

import typer
from rich.table import Table

from ada2i import presets, storage
from ada2i.cli.options import (
    Allow,
    Features,
    JsonFile,
    Modalities,
    NewModel,
    Overrides,
    Preset,
    Root,
    Settings,
    parse_overrides,
    parse_seeds,
)
from ada2i.cli.output import mean_text, out, write_json
from ada2i.cli.running import interruptible
from ada2i.jobs import logs
from ada2i.records import RunRequest, RunResult
from ada2i.training.request import DEFAULT_ROOT, TrainSpec, new_run_id, prepare, with_named

app = typer.Typer()


@app.command()
def config(
    preset: Preset = "corrected",
    settings: Annotated[str, typer.Option(help=f"Published settings: {', '.join(presets.SETTINGS)}.")] = "default",
    set_: Annotated[list[str] | None, typer.Option("--set", help="FIELD=VALUE; repeatable.")] = None,
) -> None:
    """Print the resolved config as JSON, every field by its name."""
    resolved = presets.resolve(preset=preset, settings=settings, overrides=parse_overrides(set_))
    out.print_json(resolved.model_dump_json())


@app.command()
def train(  # noqa: PLR0917
    features: Features,
    preset: Preset = "corrected",
    settings: Settings = None,
    modalities: Modalities = "tav",
    workers: Annotated[int | None, typer.Option(help="Training workers.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds, separated by commas.")] = None,
    no_afw: Annotated[bool, typer.Option("--no-afw", help="Ablation: without adaptive feature weighting.")] = False,
    no_amw: Annotated[bool, typer.Option("--no-amw", help="Ablation: without adaptive modality weighting.")] = False,
    no_modulation: Annotated[
        bool, typer.Option("--no-modulation", help="Ablation: without modulation and noise.")
    ] = False,
    set_: Overrides = None,
    model: NewModel = None,
    json_: JsonFile = None,
    allow: Allow = None,
    run: Annotated[str | None, typer.Option(help="Id of a run that was cut short, to resume it.")] = None,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Train on Ray, select on dev, evaluate once on test, register the result."""
    from ada2i.registry.versions import register
    from ada2i.training.evaluate import evaluate_run

    named = {
        "resources.workers": workers,
        "training.seeds": None if seeds is None else list(parse_seeds(seeds)),
        "ablations.no_afw": no_afw or None,
        "ablations.no_amw": no_amw or None,
        "ablations.no_modulation": no_modulation or None,
    }
    spec = TrainSpec(
        features=features,
        preset=preset,
        settings=settings,
        modalities=modalities,
        overrides=with_named(parse_overrides(set_), named),
        allow=tuple(allow or ()),
    )
    run_uri = prepare(spec, root=root, run_id=run or new_run_id())
    _train(run_uri)
    result = evaluate_run(run_uri)
    version = register(run_uri, root=root, model=model)
    show_result(result, version.name)
    write_json(json_, result)


def _train(run_uri: str) -> None:
    from ada2i.jobs.cluster import cluster
    from ada2i.store import RunFolder
    from ada2i.training.launch import launch
    from ada2i.training.progress import TerminalProgress

    request, notes = RunRequest.load(storage.join(run_uri, "request.json")), logs.notes()
    again = f"if it is cut short, the same command with `--run {request.run_id}` resumes it."
    notes.print(f"Run {request.run_id}; {again}", markup=False)
    if request.left_out:
        notes.print(f"{request.left_out} `--allow train-fitted-features` keeps them.", markup=False)
    with interruptible(then=""), cluster() as ray, TerminalProgress(run_uri) as progress:
        launch(RunFolder(run_uri), address=ray.address, on_event=progress)


def show_result(result: RunResult, version: str) -> None:
    """Print the test table, the version and where the report lies."""
    table = Table("seed", "dev wF1", "test wF1", "95 % interval", "macro F1", "accuracy")
    table.title = f"Test scores on {result.features.dataset}" + " (SYNTHETIC)" * result.features.synthetic
    for seed, test in zip(result.seeds, result.tests, strict=True):
        interval = test.weighted_f1_interval
        numbers = (test.scores.macro_f1, test.scores.accuracy)
        table.add_row(
            str(seed.seed),
            f"{seed.dev.weighted_f1:.4f}",
            f"{test.scores.weighted_f1:.4f}",
            f"{interval.low:.4f} to {interval.high:.4f}",
            *(f"{number:.4f}" for number in numbers),
        )
    if len(result.seeds) > 1:
        mean = {name: mean_text(summary) for name, summary in result.test_summary.items()}
        table.add_section()
        table.add_row("mean", "", mean["weighted_f1"], "", mean["macro_f1"], mean["accuracy"])
    out.print(table)
    out.print(result.protocol, style="dim")
    report = storage.join(result.run_uri, "report.html")
    out.print(f"Registered version: [bold]{version}[/bold]")
    out.print(f"Report: {storage.local_path(report) or report}", soft_wrap=True, markup=False, highlight=False)
