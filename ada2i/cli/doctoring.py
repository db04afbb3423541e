"""The command that checks the environment of runs."""

import json

import typer
from rich.text import Text

from ada2i.cli.options import AsJson, Root
from ada2i.cli.output import out
from ada2i.doctor.check import Check
from ada2i.doctor.examine import examine
from ada2i.store import DEFAULT_ROOT

app = typer.Typer()

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red", "skipped": "dim"}


@app.command()
def doctor(as_json: AsJson = False, root: Root = DEFAULT_ROOT) -> None:
    """Check machine, storage, Ray and Prefect, and print what to fix; exit with 1 if runs would fail."""
    checks: list[Check] = []
    for check in examine(root):
        checks.append(check)
        if not as_json:
            _show(check)
    if as_json:
        out.print_json(json.dumps([check.model_dump() for check in checks]))
    if any(check.status == "fail" for check in checks):
        raise typer.Exit(1)


def _show(check: Check) -> None:
    shown = Text(f"{check.status:<8}", _STYLES[check.status]).append(f"{check.name}: {check.found}", "default")
    out.print(shown, soft_wrap=True)
    if check.todo:
        out.print(Text(f"        {check.todo}"), soft_wrap=True)
