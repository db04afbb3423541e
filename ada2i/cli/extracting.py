"""Commands that turn raw corpora into feature sets."""

import json
from typing import Annotated, Any

import typer
from rich.table import Table

from ada2i.cli.features import show_features
from ada2i.cli.options import AsJson, Local, Root, complete_encoder, parse_overrides
from ada2i.cli.output import line, out, print_record
from ada2i.display import count
from ada2i.extraction.corpora.readers import CORPORA
from ada2i.jobs import logs
from ada2i.store import DEFAULT_ROOT, Store

app = typer.Typer()

_KINDS = f"demo-media, {', '.join(CORPORA)}, or package.module:function"
AudioEncoders = Annotated[
    str | None,
    typer.Option(
        help="Audio encoders, or `none`.", autocompletion=lambda incomplete: complete_encoder("audio", incomplete)
    ),
]
VisualEncoders = Annotated[
    str | None,
    typer.Option(
        help="Visual encoders, or `none`.", autocompletion=lambda incomplete: complete_encoder("visual", incomplete)
    ),
]


@app.command()
def extract(  # noqa: PLR0917
    kind: Annotated[str, typer.Argument(help=f"Which reader: {_KINDS}.")],
    location: Annotated[str, typer.Argument(help="Path or URI of the corpus; omit it for demo-media.")] = "",
    text: Annotated[
        str | None,
        typer.Option(
            help="Text encoder, several separated by commas, or `none`. `ada2i encoders` lists them.",
            autocompletion=lambda incomplete: complete_encoder("text", incomplete),
        ),
    ] = None,
    audio: AudioEncoders = None,
    visual: VisualEncoders = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="FIELD=VALUE, such as encoders.text.layers=5-8 or policy.unreadable=0.1; repeatable."
        ),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Name of the dataset. Default: `name` in corpus.json, or the folder's name.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes.")] = None,
    local: Local = False,
    as_json: AsJson = False,
    run: Annotated[str | None, typer.Option(help="Id of an interrupted extraction, to resume it.")] = None,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Extract features of a raw corpus, by default on Ray; print the feature set's URI."""
    from ada2i import usecases
    from ada2i.extraction.request import ExtractSpec
    from ada2i.terminal import TerminalHooks
    from ada2i.training.request import new_run_id, with_named

    encoders = {"text": text, "audio": audio, "visual": visual}
    overrides = with_named(parse_overrides(set_), {"workers": workers})
    facts: dict[str, Any] = {
        "kind": kind,
        "location": location,
        "encoders": encoders,
        "overrides": overrides,
        "dataset": dataset,
        "local": local,
    }
    if run is not None:
        usecases.check_started(Store.open(root), run)
    run_id = run or new_run_id()
    hooks = TerminalHooks(f"The same command with `--run {run_id}` resumes it.")
    result = usecases.extract(ExtractSpec.model_validate(facts), Store.open(root), run_id=run_id, hooks=hooks)
    for modality, work in result.work.items():
        counts = f"{count(work.utterances, 'utterance')}, {work.encoded} encoded, {work.reused} encoded before"
        logs.notes().print(f"{modality}: {counts}")
    show_features(result.features)
    if as_json:
        print_record(result)
    else:
        line(result.features)


@app.command()
def encoders(as_json: AsJson = False) -> None:
    """List the built-in encoders; your own is package.module:Class."""
    from ada2i.extraction.encoders.registry import DEFAULT_ENCODERS, ENCODERS

    if as_json:
        facts = ("name", "modality", "width", "licence", "extra")
        rows = [{fact: getattr(spec, fact) for fact in facts} | {"installed": not spec.missing()} for spec in ENCODERS]
        out.print_json(json.dumps(rows))
        return
    table = Table("name", "modality", "width", "licence", "installed", box=None, pad_edge=False)
    for spec in ENCODERS:
        name = f"{spec.name} (default)" if DEFAULT_ENCODERS[spec.modality] == spec.name else spec.name
        installed = f"pip install 'ada2i[{spec.extra}]'" if spec.missing() else "yes"
        shown = "hf:ID or hf:FOLDER" if spec.name == "hf:" else name
        table.add_row(shown, spec.modality, str(spec.width or "the model's"), spec.licence, installed)
    out.show(table)
