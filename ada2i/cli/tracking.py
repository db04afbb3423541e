"""The command that exports versions to other trackers."""

from typing import Annotated

import typer

from ada2i.cli.options import Root, complete_model
from ada2i.cli.output import line
from ada2i.display import count
from ada2i.store import DEFAULT_ROOT, Store

app = typer.Typer()
track = typer.Typer(no_args_is_help=True, help="Write local files of MLflow or Weights & Biases; nothing is uploaded.")
app.add_typer(track, name="track")

Models = Annotated[
    list[str] | None, typer.Argument(help="Models. Default: all.", autocompletion=complete_model, show_default=False)
]


@track.command()
def mlflow(
    models: Models = None,
    *,
    to: Annotated[str, typer.Option(help="sqlite:///FILE, or a folder, which gets mlflow.db.")],
    root: Root = DEFAULT_ROOT,
) -> None:
    """Export versions to a store that `mlflow ui --backend-store-uri` shows. A second export adds nothing."""
    from ada2i.tracking.export import export

    _show(export(Store.open(root).root, "mlflow", to, models or ()))


@track.command()
def wandb(
    models: Models = None,
    *,
    to: Annotated[str, typer.Option(help="A folder; `wandb sync FOLDER/wandb/offline-run-*` uploads its runs.")],
    root: Root = DEFAULT_ROOT,
) -> None:
    """Export versions as offline runs of Weights & Biases. A second export adds nothing."""
    from ada2i.tracking.export import export

    _show(export(Store.open(root).root, "wandb", to, models or ()))


def _show(found: dict[str, bool]) -> None:
    for name in (name for name, new in found.items() if new):
        line(f"exported {name}")
    line(f"{count(sum(found.values()), 'version')} exported, {len(found) - sum(found.values())} were there already")
