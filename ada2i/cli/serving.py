"""The command that answers HTTP requests with a registered version."""

import signal
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from ada2i.cli.options import Code, Root, parse_overrides
from ada2i.cli.output import line
from ada2i.store import DEFAULT_ROOT, Store

if TYPE_CHECKING:
    from ada2i.usecases import Serving

app = typer.Typer()


@app.command()
def serve(  # noqa: PLR0917
    version: Annotated[
        str,
        typer.Argument(
            help="MODEL@ALIAS, MODEL@NUMBER, MODEL (always its newest version), or the folder of a pulled copy."
        ),
    ],
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8100,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 listens on all addresses of this machine.")
    ] = "127.0.0.1",
    replicas: Annotated[int, typer.Option(help="Ray Serve replicas of the model, each with one CPU.")] = 1,
    min_confidence: Annotated[
        float, typer.Option(help="A turn whose largest probability is below it gets no label.")
    ] = 0.0,
    drift_window: Annotated[
        int,
        typer.Option(
            help="Largest number of dialogues per hour that each replica counts to detect drift; 0 turns it off."
        ),
    ] = 200,
    limit: Annotated[
        list[str] | None, typer.Option(help="FIELD=VALUE of a limit, such as sessions=1000; repeatable.")
    ] = None,
    allow_encoder: Annotated[
        list[str] | None,
        typer.Option(help="package.module:Class that the version may name as encoder; its code runs. Repeatable."),
    ] = None,
    code: Code = None,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Answer HTTP requests with a registered version until Ctrl-C.

    With MODEL@ALIAS the endpoint changes versions when the alias moves; with MODEL, when a version is registered.
    Requests must carry the token of ADA2I_SERVE_TOKEN. Ray runs on this machine, or in the cluster of RAY_ADDRESS.
    """
    from ada2i import usecases
    from ada2i.serving.request import spec_of

    spec = spec_of(
        version,
        code_names=tuple(code or ()),
        host=host,
        port=port,
        replicas=replicas,
        min_confidence=min_confidence,
        drift_window=drift_window,
        limits=parse_overrides(limit),
        allow_encoders=tuple(allow_encoder or ()),
    )
    for ending in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: shells start background jobs with it ignored
        signal.signal(ending, signal.default_int_handler)
    with suppress(KeyboardInterrupt), usecases.serve(spec, Store.open(root)) as running:
        show_serving(running)
        threading.Event().wait()


def show_serving(running: "Serving") -> None:
    """Print where a version answers, and a request that it answers."""
    from ada2i.serving.request import TOKEN

    send = f'curl {running.url}/predict -d @- -H "Authorization: Bearer ${TOKEN}" -H "Content-Type: application/json"'
    line(f"{running.version.name} answers at {running.url}; {running.url}/docs shows and sends requests.", "bold")
    line(f"Example: curl -s {running.url}/example | {send}")
    line("Ctrl-C ends it.")
