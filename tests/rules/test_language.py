"""Plain English: words and phrases of an old private vocabulary stay out of code, documents and messages."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Split, so that this file does not hold them.
WORDS = [
    "".join(halves)
    for halves in (
        ("wi", "sh"),
        ("to", "ld"),
        ("me", "nd"),
        ("me", "nds"),
        ("me", "nded"),
        ("bes", "ide"),
        ("nob", "ody"),
        ("someb", "ody"),
        ("anyb", "ody"),
        ("whoe", "ver"),
        ("wh", "om"),
        ("train", "ee"),
        ("cr", "ew"),
        ("for e", "ver"),
        ("so ma", "ny"),
        ("what becomes o", "f"),
        ("where there is no", "ne"),
        ("where there are no", "ne"),
        ("none whe", "re"),
        ("where it has no", "ne"),
    )
]
PATTERN = re.compile(rf"(?<![A-Za-z])({'|'.join(WORDS)})(?![A-Za-z])", re.IGNORECASE)
SUFFIXES = {".py", ".md", ".j2", ".toml", ".yaml", ".json", ".sh"}
IGNORED = ("tests/stored/", "docs/results/", "constraints.txt")


def documents() -> list[Path]:
    """Return the tracked text files of the project, and new ones that git would track."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if found.returncode:
        pytest.skip("this is not a git checkout")
    names = [name for name in found.stdout.decode().split("\0") if name and not name.startswith(IGNORED)]
    return [ROOT / name for name in names if Path(name).suffix in SUFFIXES and (ROOT / name).is_file()]


def test_no_file_uses_the_old_vocabulary() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in documents()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1)
        for match in PATTERN.finditer(line.replace("_", " "))
    ]
    assert found == []
