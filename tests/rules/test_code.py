"""Rules of the code: no package registries, no paths of one machine, short functions."""

import ast
import shutil
import statistics
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# In two halves, so that this file does not hold them.
FORBIDDEN = [
    "".join(halves)
    for halves in (
        ("pypi", ".org"),
        ("pythonhosted", ".org"),
        ("npm", "js"),
        ("deb.debian", ".org"),
        ("archive.ubuntu", ".com"),
        ("download.pytorch", ".org"),
        ("/wo", "rk/"),
        ("/tmp/d", "ev"),
    )
]


def repository_files() -> list[Path]:
    """Return the files that are tracked, or would be."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if found.returncode:
        pytest.skip("this is no git checkout")
    return [path for name in found.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_no_file_names_a_registry_or_a_place_of_one_machine() -> None:
    files = repository_files()
    assert ROOT / "pyproject.toml" in files
    texts = {path: path.read_text(errors="replace") for path in files}
    found = [f"{path.relative_to(ROOT)}: {word}" for path, text in texts.items() for word in FORBIDDEN if word in text]
    assert found == []


def functions() -> list[tuple[int, str]]:
    """Return length and place of every function of the product."""
    found = []
    for path in [p for folder in ("ada2i", "pipelines", "infra") for p in (ROOT / folder).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                found.append((length, f"{path.relative_to(ROOT)}: {node.name}"))
    return found


def test_functions_are_short() -> None:
    found = functions()
    assert [place for length, place in found if length > 60] == []
    assert statistics.median(length for length, _ in found) <= 8
