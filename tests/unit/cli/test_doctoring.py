"""`ada2i doctor`: what it shows, and its exit code."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ada2i.cli import app, doctoring
from ada2i.doctor.check import fail, ok, warn


@pytest.fixture(autouse=True)
def _nothing_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_API_SERVER_ADDRESS", "PREFECT_API_URL", "ADA2I_ROOT"):
        monkeypatch.delenv(name, raising=False)


def test_a_folder_and_nothing_else(tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["doctor", "--json", "--root", str(tmp_path)])
    assert said.exit_code == 0, said.output
    found = {check["name"]: check["status"] for check in json.loads(said.output)}
    assert (found["conditional writes"], found["Ray"], found["Prefect"]) == ("ok", "skipped", "skipped")


def test_what_to_do_stands_below(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = [ok("a", "well"), warn("b", "odd", "Look at [it]."), fail("c", "broken", "Correct it.")]
    monkeypatch.setattr(doctoring, "examine", lambda _: iter(checks))
    said = CliRunner().invoke(app, ["doctor"])
    assert said.exit_code == 1
    assert said.output == (
        "ok      a: well\nwarn    b: odd\n        Look at [it].\nfail    c: broken\n        Correct it.\n"
    )


def test_a_warning_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctoring, "examine", lambda _: iter([warn("b", "odd", "Look.")]))
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 0
