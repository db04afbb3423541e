"""Commands that resolve a config and train with it."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ada2i import presets, storage
from ada2i.cli.options import Root, check_target
from ada2i.cli.output import mean_text, out, version_name
from ada2i.errors import ConfigError
from ada2i.jobs import logs
from ada2i.records import RunRequest, RunResult
from ada2i.training.request import DEFAULT_ROOT, Wish, new_run_id, prepare, with_named

app = typer.Typer()


@app.command()
def config(
    preset: Annotated[str, typer.Option(help="Which Ada2I.")] = "corrected",
    settings: Annotated[str, typer.Option(help=f"Published settings: {', '.join(presets.SETTINGS)}.")] = "default",
    set_: Annotated[list[str] | None, typer.Option("--set", help="FIELD=VALUE; repeatable.")] = None,
) -> None:
    """Print the resolved config as JSON, every field by its name."""
    overrides = dict(presets.parse_override(text) for text in set_ or [])
    resolved = presets.resolve(preset=preset, settings=settings, overrides=overrides)
    out.print_json(resolved.model_dump_json())


@app.command()
def train(  # noqa: PLR0917
    features: Annotated[str, typer.Argument(help="A feature set, a table to import, or `demo`.")],
    preset: Annotated[str, typer.Option(help=f"Which Ada2I: {', '.join(presets.PRESETS)}.")] = "corrected",
    settings: Annotated[
        str | None, typer.Option(help=f"Published settings: {', '.join(presets.SETTINGS)}. Default: the dataset's.")
    ] = None,
    modalities: Annotated[str, typer.Option(help="Letters of t(ext), a(udio), v(isual), in order.")] = "tav",
    workers: Annotated[int | None, typer.Option(help="Training workers.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds, separated by commas.")] = None,
    no_afw: Annotated[bool, typer.Option("--no-afw", help="Ablation: without adaptive feature weighting.")] = False,
    no_amw: Annotated[bool, typer.Option("--no-amw", help="Ablation: without adaptive modality weighting.")] = False,
    no_modulation: Annotated[
        bool, typer.Option("--no-modulation", help="Ablation: without modulation and noise.")
    ] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="FIELD=VALUE; repeatable. `ada2i config` lists fields.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Name in the registry. Default: ada2i-DATASET.")] = None,
    json_: Annotated[Path | None, typer.Option("--json", help="Also write the result there.")] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="Code of an audit's finding to train in spite of; repeatable.")
    ] = None,
    run: Annotated[str | None, typer.Option(help="Id of a run that was cut short, to resume it.")] = None,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Train on Ray, select on dev, evaluate once on test, register the result."""
    from ada2i.evaluation.evaluate import evaluate_run
    from ada2i.jobs.cluster import cluster
    from ada2i.registry.versions import check_model_name, register
    from ada2i.training.launch import launch
    from ada2i.training.progress import TerminalProgress

    if model is not None:
        check_model_name(model)
    check_target("--json", json_)
    named = {
        "resources.workers": workers,
        "training.seeds": _seeds(seeds),
        "ablations.no_afw": no_afw or None,
        "ablations.no_amw": no_amw or None,
        "ablations.no_modulation": no_modulation or None,
    }
    overrides = with_named(dict(presets.parse_override(text) for text in set_ or []), named)
    wish = Wish(
        features=features,
        preset=preset,
        settings=settings,
        modalities=modalities,
        overrides=overrides,
        allow=tuple(allow or ()),
    )
    run_id = run or new_run_id()
    run_uri = prepare(wish, root=root, run_id=run_id)
    notes = logs.notes()
    notes.print(f"Run {run_id}; if it is cut short, the same command with `--run {run_id}` resumes it.", markup=False)
    if left_out := RunRequest.load(storage.join(run_uri, "request.json")).left_out:
        notes.print(f"{left_out} `--allow train-fitted-features` keeps them.", markup=False)
    try:
        with cluster() as ray, TerminalProgress(run_uri) as progress:
            launch(run_uri, address=ray.address, on_event=progress)
    except KeyboardInterrupt:
        notes.print("Interrupted; what was started has been stopped.")
        raise
    result = evaluate_run(run_uri)
    version = register(run_uri, root=root, model=model)
    show_result(result, version_name(version))
    if json_ is not None:
        json_.write_bytes(result.to_json())


def _seeds(text: str | None) -> list[int] | None:
    if text is None:
        return None
    if not all(seed.strip().isdecimal() for seed in text.split(",")):
        raise ConfigError(
            f"`--seeds` must be whole numbers separated by commas, but is {text!r}. Write for example `--seeds 1,2`."
        )
    return [int(seed) for seed in text.split(",")]


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
