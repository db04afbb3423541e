"""The command that audits features."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ada2i.cli.options import Allow, AsJson, path, target
from ada2i.cli.output import out

app = typer.Typer()


@app.command()
def audit(
    features: Annotated[str, typer.Argument(help="A feature set, or a table, even one that cannot be imported.")],
    allow: Allow = None,
    as_json: AsJson = False,
    html: Annotated[
        Path | None, typer.Option(parser=path, callback=target, help="Also write the audit to this HTML file.")
    ] = None,
) -> None:
    """Report anomalies of features; exit with 2 if training would refuse them. Writes no feature set."""
    from ada2i.audit.audit import audit as run
    from ada2i.audit.audit import blocking, check_codes
    from ada2i.reports.audit_report import render_audit, terminal_report

    check_codes(allow or ())
    report = run(features)
    if html is not None:
        html.write_text(render_audit(report, allow=allow or ()), encoding="utf-8")
    if as_json:
        out.print_json(report.model_dump_json())
    else:
        for part in terminal_report(report, allow=allow or ()):
            if isinstance(part, Table):
                out.show(part)
            else:
                out.print(part)
    if blocking(report.findings, allow=allow or ()):
        raise typer.Exit(2)
