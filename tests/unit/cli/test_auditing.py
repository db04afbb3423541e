"""An audit's exit code is training's answer."""

import json
import re
from pathlib import Path

import pytest

from tests.unit.cli.commands import Run, ok, refused
from tests.unit.data.tables import corpus, write


def test_an_audit_of_what_training_accepts(run: Run, demo: str, tmp_path: Path) -> None:
    assert "training accepts it" in ok(run, "audit", demo, "--html", str(tmp_path / "x.html"))
    assert (tmp_path / "x.html").read_text().startswith("<!DOCTYPE html>")
    assert json.loads(ok(run, "audit", demo, "--json"))["synthetic"] is True


def test_a_narrow_terminal_shows_records(run: Run, demo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    shown = ok(run, "audit", demo)
    assert "…" not in shown
    assert re.search(r"^without speaker +\d", shown, re.MULTILINE)  # a record of the widest table


def test_an_audit_of_what_training_refuses(run: Run, tmp_path: Path) -> None:
    table = write(tmp_path / "table.parquet", corpus() | {"label": [0, 0, 0, 0, 0, 0, 0, 1]})
    code, out, err = run("audit", str(table))
    assert (code, err) == (2, "")
    assert "training would refuse it (absent-class)" in out
    assert "[/]" not in out  # styles are no text
    assert "error" in out.split()
    assert "training accepts it, allowing absent-class" in ok(run, "audit", str(table), "--allow", "absent-class")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere must be a file (.parquet, .csv"),
        (["nowhere", "--allow", "all"], "`--allow` must name codes of findings, but 'all' is not one. Known codes are"),
        (["nowhere", "--html", "none/x.html"], "`--html` must name a file in an existing folder"),
    ],
)
def test_audit_refuses(run: Run, arguments: list[str], message: str) -> None:
    assert message in refused(run, "audit", *arguments)
