"""The `ada2i` command: one subcommand per capability, no logic of its own.

Exit codes: 0 done; 1 failed; 2 the input, config or credentials must be changed, and nothing was written.
"""

import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ada2i import presets, storage
from ada2i.data.datasets import DATASETS
from ada2i.errors import Ada2iError, ConfigError
from ada2i.records import RunResult, Summary, get_folder_file
from ada2i.training.request import DEFAULT_ROOT, Wish, new_run_id, prepare, with_named

if TYPE_CHECKING:
    from ada2i.evaluation.compare import Comparison
    from ada2i.registry.versions import Version

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, help="Balanced emotion recognition in conversations."
)
imports = typer.Typer(no_args_is_help=True, help="Turn published features into a feature set.")
registry = typer.Typer(no_args_is_help=True, help="Look at registered versions.")
app.add_typer(imports, name="import")
app.add_typer(registry, name="registry")
out = Console()

Root = Annotated[
    str, typer.Option(envvar="ADA2I_ROOT", help="Where everything is kept: a folder, or s3://bucket/prefix.")
]


@app.callback()
def _setup() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")


@imports.command("table")
def import_table(
    source: Annotated[str, typer.Argument(help="A Parquet file, or a folder of some.")],
    dataset: Annotated[
        str | None, typer.Option(help="Name of the dataset. Default: the file's metadata, or its name.")
    ] = None,
    labels: Annotated[str | None, typer.Option(help="Class names by index, separated by commas.")] = None,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Import a table of utterances as a feature set; print its URI."""
    from ada2i.data.table import import_table as run

    names = tuple(labels.split(",")) if labels else None
    root = storage.normalise(root)
    storage.check_writable(root)
    out.print(run(source, root, dataset=dataset, labels=names), soft_wrap=True)


@imports.command("pickle")
def import_pickle(
    source: Annotated[str, typer.Argument(help="A pickle as Ada2I, DialogueRNN, MMGCN or COSMIC publish them.")],
    dataset: Annotated[str, typer.Option(help=f"Which dataset: {', '.join(DATASETS)}.")],
    root: Root = DEFAULT_ROOT,
) -> None:
    """Import a published pickle, of which nothing is run, as a feature set; print its URI."""
    from ada2i.data.published import import_pickle as run

    _show_import(run(source, _writable(root), dataset=dataset))


@imports.command("meld")
def import_meld(
    folder: Annotated[str, typer.Argument(help="Where MELD's three CSVs lie.")],
    features: Annotated[
        list[str] | None, typer.Option(help="A Parquet file or folder of vectors; repeatable. Default: none.")
    ] = None,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Import MELD's CSVs, joined with tables of vectors, as a feature set; print its URI."""
    from ada2i.data.meld import import_meld as run

    _show_import(run(folder, _writable(root), features=features or ()))


@imports.command("join")
def import_join(
    base: Annotated[str, typer.Argument(help="A table of utterances, whose own vectors give way.")],
    text: Annotated[str | None, typer.Option(help="A table with `text_feat`.")] = None,
    audio: Annotated[str | None, typer.Option(help="A table with `audio_feat`.")] = None,
    visual: Annotated[str | None, typer.Option(help="A table with `visual_feat`.")] = None,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Import a table of utterances joined with one table per modality as a feature set; print its URI."""
    from ada2i.data.join import import_joined as run

    _show_import(run(base, _writable(root), text=text, audio=audio, visual=visual))


def _writable(root: str) -> str:
    root = storage.normalise(root)
    storage.check_writable(root)
    return root


def _show_import(uri: str) -> None:
    """Print where a set lies, and on standard error what it holds."""
    from ada2i.data.manifest import open_features

    manifest = open_features(uri).manifest
    held = [(split, manifest.splits[split]) for split in ("train", "dev", "test")]
    counts = "; ".join(f"{split} {info.dialogues} dialogues, {info.utterances} utterances" for split, info in held)
    out.print(uri, soft_wrap=True)
    Console(stderr=True).print(f"{counts}; {manifest.source}", soft_wrap=True, markup=False, highlight=False)


@app.command("demo-corpus")
def demo_corpus(root: Root = DEFAULT_ROOT) -> None:
    """Write the SYNTHETIC demo feature set; print its URI."""
    from ada2i.data.demo import write_demo_corpus

    root = storage.normalise(root)
    storage.check_writable(root)
    out.print(write_demo_corpus(root), soft_wrap=True)


@app.command()
def audit(
    features: Annotated[str, typer.Argument(help="A feature set, or a table, even one that cannot be imported.")],
    allow: Annotated[
        list[str] | None, typer.Option(help="Code of a finding that must not keep it from training; repeatable.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    html: Annotated[Path | None, typer.Option(help="Also write a page there.")] = None,
) -> None:
    """Say what is odd about features; exit with 2 where training would refuse them. Writes no features."""
    from ada2i.data.audit import audit as run
    from ada2i.data.audit import blocking, check_codes
    from ada2i.evaluation.audit_report import render_audit, terminal_report

    check_codes(allow or ())
    _check_target("--html", html)
    report = run(features)
    if html is not None:
        html.write_text(render_audit(report, allow=allow or ()), encoding="utf-8")
    if as_json:
        out.print_json(report.model_dump_json())
    else:
        for part in terminal_report(report, allow=allow or ()):
            out.print(part)
    if blocking(report.findings, allow=allow or ()):
        raise typer.Exit(2)


@app.command()
def config(
    preset: Annotated[str, typer.Option(help="Which Ada2I.")] = "reference",
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
    preset: Annotated[str, typer.Option(help=f"Which Ada2I: {', '.join(presets.PRESETS)}.")] = "reference",
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
    from ada2i.registry.versions import check_model_name, register
    from ada2i.training.cluster import cluster
    from ada2i.training.launch import launch
    from ada2i.training.progress import TerminalProgress

    if model is not None:
        check_model_name(model)
    _check_target("--json", json_)
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
    notes = Console(stderr=True, highlight=False, soft_wrap=True)
    notes.print(f"Run {run_id}; if it is cut short, the same command with `--run {run_id}` resumes it.", markup=False)
    try:
        with cluster() as ray, TerminalProgress(run_uri) as progress:
            launch(run_uri, address=ray.address, on_event=progress)
    except KeyboardInterrupt:
        notes.print("Interrupted; what was started has been stopped.")
        raise
    result = evaluate_run(run_uri)
    version = register(run_uri, root=root, model=model)
    show_result(result, f"{version.model}@{version.number}")
    if json_ is not None:
        json_.write_bytes(result.to_json())


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
        mean = {name: _mean(summary) for name, summary in result.test_summary.items()}
        table.add_section()
        table.add_row("mean", "", mean["weighted_f1"], "", mean["macro_f1"], mean["accuracy"])
    out.print(table)
    out.print(result.protocol, style="dim")
    report = storage.join(result.run_uri, "report.html")
    out.print(f"Registered version: [bold]{version}[/bold]")
    out.print(f"Report: {storage.local_path(report) or report}", soft_wrap=True, markup=False, highlight=False)


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="MODEL@NUMBER, or MODEL for its newest.")],
    second: Annotated[str, typer.Argument(help="The same of another, tested on the same dialogues.")],
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Say whether one of two registered versions is better on test, or only seems so."""
    from ada2i.evaluation.compare import compare as run
    from ada2i.registry.versions import version_uri

    found = [_version(text, root) for text in (first, second)]
    name = "predictions.parquet"
    predictions = [get_folder_file(version_uri(root, v), name, v.files[name]) for v in found]
    a, b = (f"{v.model}@{v.number}" for v in found)
    comparison = run(*predictions, names=(a, b), synthetic=any(v.features.synthetic for v in found))
    if as_json:
        out.print_json(comparison.model_dump_json())
    else:
        show_comparison(comparison)


def show_comparison(comparison: "Comparison") -> None:
    """Print the table of differences, what it means, and what it cannot say."""
    from ada2i.evaluation.compare import verdict
    from ada2i.evaluation.report import SYNTHETIC_NOTE

    table = Table("test", "A", "B", "B - A", "95 % interval", "p boot", "p swap")
    for name, found in comparison.differences.items():
        scores, ps = (found.first, found.second), (found.p_bootstrap, found.p_randomisation)
        interval = f"{found.interval.low:.4f} to {found.interval.high:.4f}"
        cells = [f"{score:.4f}" for score in scores], [f"{p:.4f}" for p in ps]
        label = {"weighted_f1": "wF1", "macro_f1": "macro F1"}.get(name, name)
        table.add_row(label, *cells[0], f"{found.difference:+.4f}", interval, *cells[1])
    title = f"A: {comparison.first}, B: {comparison.second}" + " (SYNTHETIC)" * comparison.synthetic
    out.print(title, style="bold", soft_wrap=True, markup=False, highlight=False)
    out.print(table)
    out.print(verdict(comparison), soft_wrap=True, markup=False, highlight=False)
    note = (
        f"{comparison.dialogues} test dialogues, {comparison.utterances} utterances; the two say different classes of "
        f"{comparison.changed}. boot: {comparison.rounds} resamples of dialogues; swap: as many rounds of swapping the "
        "two in random dialogues. This is about two trained models; other seeds may differ by more."
    )
    out.print(note, style="dim", soft_wrap=True, highlight=False)
    if comparison.synthetic:
        out.print(SYNTHETIC_NOTE, style="bold red", soft_wrap=True)


@registry.command("list")
def registry_list(
    model: Annotated[str | None, typer.Argument(help="A model's name. Default: all.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    root: Root = DEFAULT_ROOT,
) -> None:
    """List registered versions, oldest first."""
    from ada2i.registry.versions import models, versions

    found = [v for name in ([model] if model else models(root)) for v in versions(root, name)]
    if as_json:
        out.print_json(json.dumps([v.model_dump(mode="json") for v in found]))
        return
    table = Table("version", "created", "preset", "dev wF1", "test wF1")
    table.columns[0].overflow = "fold"
    table.columns[0].min_width = 24
    for v in found:
        test = _mean(v.test_summary["weighted_f1"])
        table.add_row(f"{v.model}@{v.number}", v.created[:10], v.preset, f"{v.dev_weighted_f1:.4f}", test)
    out.print(table if found else f"No versions in {storage.normalise(root)}.")


@registry.command("show")
def registry_show(
    version: Annotated[str, typer.Argument(help="MODEL@NUMBER, or MODEL for its newest.")],
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Show one version: what it is, its scores and its files."""
    from ada2i.registry.versions import version_uri

    found = _version(version, root)
    if as_json:
        out.print_json(found.model_dump_json())
        return
    out.print(
        _facts(
            found.model_dump(mode="json", exclude={"files", "features", "test_summary"})
            | {"uri": version_uri(root, found)}
        )
    )
    out.print(_facts(found.features.model_dump(mode="json")))
    out.print(
        _facts(
            {k: f"{s.mean:.4f}" + (f" ± {s.sd:.4f}" if s.sd is not None else "") for k, s in found.test_summary.items()}
        )
    )
    out.print(
        _facts({name: f"{entry.size:>12,} bytes  sha256 {entry.sha256[:16]}…" for name, entry in found.files.items()})
    )


def _version(text: str, root: str) -> "Version":
    """Return the version that MODEL@NUMBER, or MODEL for its newest, names."""
    from ada2i.registry.versions import find

    model, _, number = text.partition("@")
    if number and not number.isdigit():
        raise ConfigError(f"A version must be MODEL@NUMBER, but is {text!r}. Write for example `ada2i@3`.")
    return find(root, model, int(number) if number else None)


def _mean(summary: Summary) -> str:
    return f"{summary.mean:.4f}" + (f" ± {summary.sd:.4f}" if summary.sd is not None else "")


def _facts(facts: dict[str, Any]) -> Table:
    table = Table(show_header=False, box=None)
    for name, value in facts.items():
        table.add_row(Text(name, "bold"), Text(str(value), overflow="fold"))
    return table


def _seeds(text: str | None) -> list[int] | None:
    if text is None:
        return None
    if not all(seed.strip().isdecimal() for seed in text.split(",")):
        raise ConfigError(
            f"`--seeds` must be whole numbers separated by commas, but is {text!r}. Write for example `--seeds 1,2`."
        )
    return [int(seed) for seed in text.split(",")]


def _check_target(option: str, target: Path | None) -> None:
    if target is not None and (target.is_dir() or not target.resolve().parent.is_dir()):
        raise ConfigError(
            f"`{option}` must name a file in a folder that exists, but is {target}. Create the folder, or name a file "
            "in it."
        )


def main() -> None:
    """Entry point: run the command, and turn our errors into a message and an exit code."""
    try:
        app()
    except Ada2iError as error:
        Console(stderr=True).print(
            f"[bold red]error:[/bold red] {_plain(error.message)}", soft_wrap=True, highlight=False
        )
        sys.exit(error.exit_code)


def _plain(text: str) -> str:
    """Keep brackets in messages from being read as markup."""
    return text.replace("[", r"\[")


if __name__ == "__main__":
    main()
