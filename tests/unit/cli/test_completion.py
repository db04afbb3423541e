"""Completion of values: versions, models, presets, settings and config fields."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ada2i.cli import app
from ada2i.registry.aliases import move
from tests.unit.registry.finished import registered


def completed(words: str, root: Path) -> list[str]:
    """Return what bash would offer for a command line."""
    environment = {
        "_ADA2I_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
        "ADA2I_ROOT": str(root),
    }
    return CliRunner().invoke(app, prog_name="ada2i", env=environment).stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("ada2i registry show ad", ["ada2i"]),
        ("ada2i registry show ada2i@", ["ada2i@champion", "ada2i@1"]),
        ("ada2i registry history a", ["ada2i"]),
        ("ada2i train demo --preset c", ["corrected"]),
        ("ada2i train demo --settings me", ["meld"]),
        ("ada2i extract folder calls --text mi", ["minilm"]),
        ("ada2i extract folder calls --text minilm,mp", ["minilm,mpnet"]),
        ("ada2i extract folder calls --audio whis", ["whisper-base"]),
        ("ada2i extract folder calls --visual e", ["efficientnet-lite0"]),
        ("ada2i train demo --encoder tex", ["text="]),
        ("ada2i train demo --encoder audio=pro", ["audio=prosody"]),
        ("ada2i train demo --set training.ep", ["training.epochs="]),
    ],
)
def test_values_are_completed(tmp_path: Path, words: str, expected: list[str]) -> None:
    root = tmp_path.as_uri()
    registered(root, "run-a")
    move(root, "ada2i", "champion", 1, expected=None, by="anna", reason="first")
    found = completed(words, tmp_path)
    assert [word for word in expected if word not in found] == []
