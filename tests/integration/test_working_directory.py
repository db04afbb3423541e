"""The working directory: its files replace no module, and encoders of one's own are found there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ada2i.data.manifest import open_features
from tests.calls import write_calls

pytestmark = pytest.mark.integration

DOCS = Path(__file__).resolve().parents[2] / "docs" / "extraction.md"
SHADOWS = ("calendar.py", "statistics.py", "queue.py", "types.py", "random.py", "ray/__init__.py")


def ada2i(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder without a configured cluster or server."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PREFECT_", "ADA2I_"))}
    command = [str(Path(sys.executable).with_name("ada2i")), *arguments, "--root", "store"]
    return subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, check=False)


def test_files_called_like_modules_are_not_imported(tmp_path: Path) -> None:
    for name in SHADOWS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise SystemExit('a file of the working directory was imported')\n")
    ended = ada2i("train", "demo", "--workers", "2", "--seeds", "1", "--set", "training.epochs=1", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "Registered version: ada2i-synthetic-demo@1" in ended.stdout


def test_an_encoder_in_the_working_directory_is_found_behind_what_is_installed(tmp_path: Path) -> None:
    (tmp_path / "calendar.py").write_text("raise SystemExit('a file of the working directory was imported')\n")
    code = re.search(r"```python\n# loudness\.py: .*?\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert code is not None
    (tmp_path / "loudness.py").write_text(code[1])
    write_calls(tmp_path / "calls", dialogues=12, turns=2)
    ended = ada2i("extract", "folder", "calls", "--text", "none", "--audio", "loudness:Loudness", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    manifest = open_features(ended.stdout.strip()).manifest
    assert {m: info.encoder for m, info in manifest.modalities.items()}.keys() == {"audio"}
