"""Commands that turn published features into feature sets."""

from typing import Annotated

import typer

from ada2i.cli.features import show_features
from ada2i.cli.options import Root, writable
from ada2i.cli.output import line
from ada2i.data.splits import GATE_SHARE
from ada2i.importers.datasets import DATASETS, MMSA_DATASETS
from ada2i.modalities import Modality
from ada2i.store import DEFAULT_ROOT

app = typer.Typer()
imports = typer.Typer(no_args_is_help=True, help="Turn published features into a feature set.")
app.add_typer(imports, name="import")


@imports.command("table")
def import_table(  # noqa: PLR0917
    source: Annotated[str, typer.Argument(help="A table, or a folder of tables: Parquet, CSV, JSON lines or Arrow.")],
    dataset: Annotated[
        str | None, typer.Option(help="Name of the dataset. Default: the file's metadata, or its name.")
    ] = None,
    labels: Annotated[str | None, typer.Option(help="Class names by index, separated by commas.")] = None,
    gate_share: Annotated[
        float, typer.Option(min=0.0, max=0.5, help="Share of train dialogues, newest by `recorded_at`, for the gate.")
    ] = GATE_SHARE,
    rename: Annotated[
        list[str] | None, typer.Option(help="OLD=NEW: read the column OLD under the name NEW; repeatable.")
    ] = None,
    pack: Annotated[
        list[str] | None,
        typer.Option(help="'text_*' or 'emb_*=text_feat': columns of one number each become a vector; repeatable."),
    ] = None,
    split_by: Annotated[
        str | None,
        typer.Option(
            help="Make the splits of a table without them by dialogue, time, or a column whose groups stay together."
        ),
    ] = None,
    shares: Annotated[
        str | None, typer.Option(help="Percent of train, dev and test for --split-by. Default: 80,10,10.")
    ] = None,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Import a table of utterances (.parquet, .csv, .jsonl, .feather, .arrow) as a feature set; print its URI."""
    from ada2i.importers.table import import_table as run

    names = tuple(labels.split(",")) if labels else None
    uri = run(
        source,
        writable(root),
        dataset=dataset,
        labels=names,
        gate_share=gate_share,
        rename=rename or (),
        pack=pack or (),
        split_by=split_by,
        shares=shares,
    )
    _show_import(uri)


@imports.command("pickle")
def import_pickle(
    source: Annotated[str, typer.Argument(help="A pickle in the format of Ada2I, DialogueRNN, MMGCN, COSMIC or MMSA.")],
    dataset: Annotated[str, typer.Option(help=f"Which dataset: {', '.join((*DATASETS, *MMSA_DATASETS))}.")],
    layout: Annotated[str | None, typer.Option(help="mmsa: refuse other layouts. Default: recognised.")] = None,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Import a published pickle as a feature set, without executing its code; print the set's URI."""
    from ada2i.importers.published import import_pickle as run

    _show_import(run(source, writable(root), dataset=dataset, layout=layout))


@imports.command("meld")
def import_meld(
    folder: Annotated[str, typer.Argument(help="Folder with MELD's three CSVs.")],
    features: Annotated[
        list[str] | None, typer.Option(help="A table with vectors, or a folder of them; repeatable.")
    ] = None,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Import MELD's CSVs, joined with tables of vectors, as a feature set; print its URI."""
    from ada2i.importers.meld import import_meld as run

    _show_import(run(folder, writable(root), features=features or ()))


@imports.command("join")
def import_join(
    base: Annotated[str, typer.Argument(help="A table of utterances; its own vectors are replaced.")],
    text: Annotated[str | None, typer.Option(help="A table with `text_feat`.")] = None,
    audio: Annotated[str | None, typer.Option(help="A table with `audio_feat`.")] = None,
    visual: Annotated[str | None, typer.Option(help="A table with `visual_feat`.")] = None,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Import a table of utterances joined with one table per modality as a feature set; print its URI."""
    from ada2i.importers.join import import_joined as run

    given: dict[Modality, str | None] = {"text": text, "audio": audio, "visual": visual}
    tables = {modality: table for modality, table in given.items() if table is not None}
    _show_import(run(base, writable(root), tables=tables))


@app.command("demo-corpus")
def demo_corpus(root: Root = DEFAULT_ROOT) -> None:
    """Write the SYNTHETIC demo feature set; print its URI."""
    from ada2i.importers.demo import write_demo_corpus

    _show_import(write_demo_corpus(writable(root)))


def _show_import(uri: str) -> None:
    """Print a set's URI, and its summary on standard error."""
    show_features(uri)
    line(uri)
