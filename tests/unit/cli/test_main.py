"""Exit codes and messages that all commands have in common."""

from pathlib import Path

import pytest

from tests.unit.cli.commands import Run, refused


@pytest.mark.parametrize("arguments", [["train"], ["train", "demo", "--nonsense"], ["nonsense"], ["registry", "show"]])
def test_wrong_usage(run: Run, arguments: list[str]) -> None:
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    assert "Usage: " in err


def test_brackets_in_messages_are_no_markup(run: Run, root: Path) -> None:
    message = refused(run, "train", "[bold]x[/bold]", "--root", str(root))
    assert "[bold]x[/bold] must be a file (.parquet" in message


def test_an_empty_root_is_not_the_default_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADA2I_ROOT", "")
    assert "ADA2I_ROOT must be a folder or s3://bucket/prefix, but is empty" in refused(run, "train", "demo")
