"""Commands that resolve a config and train with it."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from ada2i import presets, storage
from ada2i.cli.aliasing import user
from ada2i.cli.flooring import baseline_rows
from ada2i.cli.gating import what_moved
from ada2i.cli.options import (
    Allow,
    AsJson,
    Code,
    Encoders,
    Features,
    Local,
    Modalities,
    NewModel,
    Overrides,
    Preset,
    Root,
    Settings,
    parse_overrides,
    parse_seeds,
    train_spec,
)
from ada2i.cli.output import line, out, print_record
from ada2i.config import TrainingConfig
from ada2i.errors import ConfigError
from ada2i.jobs import logs
from ada2i.records import RunResult
from ada2i.registry.versions import Version, read_file
from ada2i.store import DEFAULT_ROOT, Store

if TYPE_CHECKING:
    from ada2i.training.request import TrainSpec
    from ada2i.usecases import Outcome

app = typer.Typer()

NoModulation = Annotated[bool, typer.Option("--no-modulation", help="Ablation: without modulation and noise.")]
Dataset = Annotated[str | None, typer.Option(help="Name of the dataset of a table or corpus. Default: its own name.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Resume the newest unfinished run of these features and options.")
]

_SEEDS = ",".join(map(str, TrainingConfig.model_fields["seeds"].default))


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
    modalities: Modalities = None,
    encoder: Encoders = None,
    dataset: Dataset = None,
    workers: Annotated[int | None, typer.Option(help="Training workers. Default: one per GPU, or 2.")] = None,
    seeds: Annotated[str | None, typer.Option(help=f"Seeds, a run of each: 1,2,3. Default: seed {_SEEDS}.")] = None,
    no_afw: Annotated[bool, typer.Option("--no-afw", help="Ablation: without adaptive feature weighting.")] = False,
    no_amw: Annotated[bool, typer.Option("--no-amw", help="Ablation: without adaptive modality weighting.")] = False,
    no_modulation: NoModulation = False,
    set_: Overrides = None,
    model: NewModel = None,
    as_json: AsJson = False,
    allow: Allow = None,
    skip: Annotated[
        bool, typer.Option("--skip-unchanged", help="Do not train if the same features and config were trained before.")
    ] = False,
    promote: Annotated[
        bool, typer.Option("--promote", help="Let the gate judge the version, and promote it if the rules allow it.")
    ] = False,
    rule: Annotated[
        list[str] | None, typer.Option("--rule", help="Rule of the gate: RULE=VALUE, such as margin=0.01; repeatable.")
    ] = None,
    code: Code = None,
    run: Annotated[str | None, typer.Option(help="Id of an unfinished run, to resume it.")] = None,
    local: Local = False,
    resume: Resume = False,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Train, by default on Ray; evaluate the selected epoch once on test, and register the result."""
    from ada2i import usecases
    from ada2i.terminal import TerminalHooks

    named = {
        "resources.workers": workers,
        "training.seeds": list(parse_seeds(seeds)) if seeds else None,
        "ablations.no_afw": no_afw or None,
        "ablations.no_amw": no_amw or None,
        "ablations.no_modulation": no_modulation or None,
    }
    spec = train_spec(
        features, preset, settings, modalities, overrides=set_, named=named, allow=allow, encoders=encoder
    ).model_copy(update={"local": local, "dataset": dataset})
    run_id = _run_id(spec, Store.open(root), run, resume=resume)
    outcome = usecases.train(
        spec,
        Store.open(root),
        run_id=run_id,
        hooks=TerminalHooks(f"The same command with `--run {run_id}` resumes it."),
        model=model,
        force=not skip,
        gate=usecases.Gate(parse_overrides(rule), by=user(), code=tuple(code or ())) if promote else None,
    )
    if as_json:
        print_record(outcome.result or _result_of(root, outcome.version))
    else:
        _show_outcome(root, outcome, judged=promote)


def _run_id(spec: "TrainSpec", store: Store, run: str | None, *, resume: bool) -> str:
    """Return the id of the run to resume, or a new one."""
    from ada2i import usecases
    from ada2i.training.request import new_run_id

    if run is not None and resume:
        raise ConfigError("`--run` and `--resume` both choose the run to resume. Leave one out.", field="run")
    if run is not None:
        usecases.check_started(store, run)
    return run or (usecases.newest_unfinished(spec, store) if resume else new_run_id())


def _show_outcome(root: str, outcome: "Outcome", *, judged: bool) -> None:
    if outcome.result is not None:
        show_result(outcome.result, outcome.version.name)
    if judged or outcome.result is None:
        line(f"{outcome.what}: {outcome.reason}")
    if judged:
        line(what_moved(root, outcome))


def _result_of(root: str, version: Version) -> RunResult:
    return RunResult.model_validate_json(read_file(root, version, "result.json"))


def show_result(result: RunResult, version: str) -> None:
    """Print the test table, the baselines, the version and the path of the report."""
    from ada2i.reports.report import baseline_note, dead_classes, regression_table

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
        mean = {name: summary.text for name, summary in result.test_summary.items()}
        table.add_section()
        table.add_row("mean", "", mean["weighted_f1"], "", mean["macro_f1"], mean["accuracy"])
    out.show(table)
    if predicted := regression_table(result):
        shown = Table(*predicted[0], title="Predicted numbers on test; classes above and below are those of their sign")
        for row in predicted:
            shown.add_row(*(f"{value:.4f}" if isinstance(value, float) else Text(str(value)) for value in row.values()))
        out.show(shown)
    if result.baselines:
        out.show(baseline_rows(result.baselines))
    for note in filter(None, (result.own_code_note, baseline_note(result), *dead_classes(result))):
        line(note, "bold yellow")
    out.print(Text(result.protocol, "dim"))
    report = storage.join(result.run_uri, "report.html")
    out.print(Text.assemble("Registered version: ", (version, "bold")))
    line(f"Report: {storage.local_path(report) or report}")
    logs.notes().print(
        f"Next: `ada2i registry open {version}` shows the report, `ada2i predict {version} SOURCE` uses it."
    )
