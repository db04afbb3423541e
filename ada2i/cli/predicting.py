"""The command that predicts every utterance of a source with a registered version."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ada2i import storage
from ada2i.cli.options import AsJson, Code, Local, Root
from ada2i.cli.output import line, out, print_record
from ada2i.store import DEFAULT_ROOT, Store

if TYPE_CHECKING:
    from ada2i.prediction.records import PredictionManifest

app = typer.Typer()


@app.command()
def predict(  # noqa: PLR0917
    version: Annotated[str, typer.Argument(help="MODEL@ALIAS, MODEL@NUMBER, MODEL, or the folder of a pulled copy.")],
    source: Annotated[
        str, typer.Argument(help="A feature set, a table, `demo`, or a raw corpus: demo-media, corpus:KIND:LOCATION.")
    ],
    split: Annotated[str, typer.Option(help="Only this split: train, dev, test...")] = "all",
    out_: Annotated[
        str | None, typer.Option("--out", help="Folder for the files, or s3://... Default: ROOT/predictions/ID.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes.")] = None,
    allow_encoder: Annotated[
        list[str] | None,
        typer.Option(
            help="package.module:Class that the version may name for a raw corpus; its code runs. Repeatable."
        ),
    ] = None,
    min_confidence: Annotated[
        float,
        typer.Option(
            metavar="P", help="No label if the largest probability is below P; the version's report shows what P keeps."
        ),
    ] = 0.0,
    local: Local = False,
    code: Code = None,
    as_json: AsJson = False,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Predict every utterance of a source; print the folder of the Parquet files.

    More than 10,000 rows are predicted on Ray. Repeat an interrupted command to resume it. A source needs no
    labels; if it has labels, scores are shown.
    """
    from ada2i import usecases
    from ada2i.prediction.request import PredictSpec
    from ada2i.terminal import TerminalHooks
    from ada2i.training.request import new_run_id

    allowed = tuple(allow_encoder or ())
    spec = PredictSpec(
        version=version,
        source=source,
        split=split,
        out=out_,
        workers=workers,
        allow_encoders=allowed,
        code=tuple(code or ()),
        local=local,
        min_confidence=min_confidence,
    )
    place, manifest = usecases.predict(spec, Store.open(root), hooks=TerminalHooks(), extraction_run=new_run_id())
    if as_json:
        print_record(manifest)
    else:
        show_prediction(manifest, place)


def show_prediction(manifest: "PredictionManifest", place: str) -> None:
    """Print the predicted classes, scores if there are labels, and the folder of the files."""
    table = Table("class", "utterances", "share", title_justify="left")
    table.title = f"{manifest.model}@{manifest.version} on {manifest.source}" + " (SYNTHETIC)" * manifest.synthetic
    for label, count in manifest.predicted.items():
        table.add_row(label, f"{count:,}", f"{count / max(manifest.utterances, 1):.1%}")
    if withheld := manifest.utterances - sum(manifest.predicted.values()):
        table.add_row("no label", f"{withheld:,}", f"{withheld / manifest.utterances:.1%}")
    out.show(table)
    if manifest.scores:
        out.print(_scores(manifest))
    files = storage.local_path(place) or place
    line(f"{files}/part-*.parquet")


def _scores(manifest: "PredictionManifest") -> Table:
    table = Table("split", "utterances", "wF1", "macro F1", "accuracy", title_justify="left")
    table.title = "Of the utterances with a label" if manifest.withheld else None
    for found in manifest.scores:
        numbers = (found.weighted_f1, found.macro_f1, found.accuracy)
        table.add_row(found.split, f"{found.utterances:,}", *(f"{number:.4f}" for number in numbers))
    return table
