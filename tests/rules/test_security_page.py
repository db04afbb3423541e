"""Each threat in docs/security.md names the tests that show what is done, and these exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTS = "\n".join(path.read_text() for path in sorted((ROOT / "tests").rglob("test_*.py")))


def rows() -> list[list[str]]:
    """Return the cells of each threat."""
    table = (ROOT / "docs" / "security.md").read_text().partition("## Threats")[2].partition("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[1])
def test_every_threat_names_tests_that_exist(row: list[str]) -> None:
    _, _, _, shown, _ = row
    files, names = re.findall(r"`(tests/[\w/]+\.py)`", shown), re.findall(r"`(test_\w+)`", shown)
    assert files or names or shown.startswith("none: ")
    assert [file for file in files if not (ROOT / file).is_file()] == []
    assert [name for name in names if f"def {name}(" not in TESTS] == []
