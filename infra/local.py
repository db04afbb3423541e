"""The local stack without containers: S3, Prefect, Ray and a worker on this machine. ``python -m infra.local up``."""

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ada2i.errors import Ada2iError
from ada2i.jobs import cluster
from infra import services, stack
from infra.services import Layout

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Run S3, Prefect, Ray and a worker on this machine.")
console = Console(soft_wrap=True, highlight=False)

Folder = Annotated[Path, typer.Option(help="Private folder for data, logs and secrets.")]
_DEFAULT = services.REPOSITORY / ".stack"
_DOTENV = services.REPOSITORY / ".env"
_DOTENV_NAMES = ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE")


@app.command()
def up(folder: Folder = _DEFAULT) -> None:
    """Start the services that do not run yet, and print their addresses."""
    begun = time.monotonic()
    with console.status("Starting S3, Prefect, Ray and a worker"):
        running = stack.start(folder, progress=_report)
    ours = _write_dotenv(running.layout)
    console.print(f"\nUp after {time.monotonic() - begun:.0f} s.\n")
    _explain(running.layout, plain_shell=ours)


@app.command()
def down(
    folder: Folder = _DEFAULT,
    purge: Annotated[bool, typer.Option("--purge", help="Delete its data and secrets too.")] = False,
) -> None:
    """Stop all of it; data and secrets stay for the next start."""
    with console.status("Stopping"):
        stack.stop(folder, progress=_report)
    if _is_ours(folder):
        _DOTENV.unlink()
    if purge:
        stack.purge(folder)
    console.print(
        f"Nothing runs. {f'{_short(folder)} is deleted.' if purge else f'Data and secrets stay in {_short(folder)}.'}"
    )


@app.command()
def status(
    folder: Folder = _DEFAULT, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Show what runs; exit with 1 if the stack was started and a part of it does not answer."""
    found = stack.load(folder)
    rows = [_row(found, service) for service in services.SERVICES]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        table = Table("Service", "PID", "Address", "State", box=None, pad_edge=False)
        for row in rows:
            table.add_row(*(str(value if value is not None else "-") for value in row.values()))
        console.print(table)
    states = {row["state"] for row in rows}
    if states == {"stopped"} and not as_json:
        console.print("The stack is stopped; `make up` starts it.")
    raise typer.Exit(0 if states in ({"answers"}, {"stopped"}) else 1)


def main() -> None:
    """Run the command line; errors of ours are one message, not a traceback."""
    try:
        app()
    except Ada2iError as problem:
        Console(stderr=True, soft_wrap=True).print(problem.message, markup=False, highlight=False)
        sys.exit(problem.exit_code)


def _row(found: stack.Stack | None, service: services.Service) -> dict[str, str | int | None]:
    if found is None or service.name not in found.running:
        return {"service": service.title, "pid": None, "address": None, "state": "stopped"}
    state = "dead"
    if found.alive(service.name):
        state = "answers" if service.answers(found.layout) else "does not answer"
    pid = found.running[service.name].pid
    return {"service": service.title, "pid": pid, "address": service.where(found.layout), "state": state}


def _report(title: str, where: str, event: stack.Event, seconds: float) -> None:
    words = {
        "running": "runs already",
        "ready": f"ready after {seconds:.1f} s",
        "stopped": f"stopped in {seconds:.1f} s",
    }
    console.print(f"  {title:<8} {where:<24} {words[event]}")


def _explain(layout: Layout, *, plain_shell: bool) -> None:
    secrets = {
        "Prefect": ("prefect", f"the line in {_short(layout.prefect_auth)}"),
        "Ray": ("ray", f"the token in {_short(layout.token)}; paste it into the dashboard's dialog"),
        "S3": ("s3", f"the keys in {_short(layout.folder / 'env')} (bucket {services.BUCKET})"),
    }
    for title, (service, secret) in secrets.items():
        console.print(f"  {title:<8} {layout.address(service):<24} needs {secret}", markup=False)
    load = f"set -a; . {_short(layout.folder / 'env')}; set +a"
    if not plain_shell:
        console.print(f"\n{_short(_DOTENV)} was not written by this stack and stays unchanged.")
    console.print(f"\nLet commands of this shell use the stack\n  {load}")
    console.print(f"Train, evaluate and register\n  prefect deployment run {services.DEPLOYMENT} --watch")
    console.print("See the registered models\n  ada2i registry list")


def _write_dotenv(layout: Layout) -> bool:
    """Give Prefect's command line in a plain shell the server's address; a file of another origin stays."""
    if _DOTENV.exists() and not _is_ours(layout.folder):
        return False
    environment = layout.environment()
    lines = [_mark(layout.folder), *(f"{name}={environment[name]}" for name in _DOTENV_NAMES), ""]
    cluster.write_secret(_DOTENV, "\n".join(lines))
    return True


def _is_ours(folder: Path) -> bool:
    return _DOTENV.exists() and _DOTENV.read_text().splitlines()[:1] == [_mark(folder)]


def _mark(folder: Path) -> str:
    return f"# Of the local stack in {folder.resolve()}: written by its `up`, deleted by its `down`."


def _short(path: Path) -> str:
    whole = path.resolve()
    return str(whole.relative_to(Path.cwd()) if whole.is_relative_to(Path.cwd()) else whole)


if __name__ == "__main__":
    main()
