"""The architecture page names the file and line of behaviours; run this file to update the lines."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| [^|]+ \| `([\w/.]+):(\d+)` \| `(\w+)` \|$", re.MULTILINE)


def lines(path: Path) -> dict[str, int]:
    """Return the line of each function, class and assigned name of a file."""
    found: dict[str, int] = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.setdefault(node.name, node.lineno)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(node, ast.Assign | ast.AnnAssign):
                found.setdefault(target.id, node.lineno)
    return found


def places() -> list[tuple[str, int, str]]:
    """Return file, line and symbol of every row."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    return [(file, int(line), symbol) for file, line, symbol in ROW.findall(text)]


def test_every_behaviour_is_at_its_line() -> None:
    assert len(places()) == 20
    wrong = [(file, symbol) for file, line, symbol in places() if lines(ROOT / file).get(symbol) != line]
    assert wrong == []


if __name__ == "__main__":
    page = ROOT / "docs" / "architecture.md"
    text = page.read_text()
    for file, line, symbol in places():
        text = text.replace(f"`{file}:{line}` | `{symbol}`", f"`{file}:{lines(ROOT / file)[symbol]}` | `{symbol}`")
    page.write_text(text)
