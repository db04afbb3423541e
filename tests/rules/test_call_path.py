"""The path of a training from its entry points to the model's forward pass is short, and documented."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Each function, its file, and how the next one is reached: by a call, by a Ray job, or by Ray Train.
COMMON = [
    ("ada2i/usecases.py", "train", "launch"),
    ("ada2i/training/launch.py", "launch", "submit"),  # the Ray job that `prepare` returned; its entry point is `drive`
    ("ada2i/training/launch.py", "drive", "train_group"),
    ("ada2i/training/launch.py", "train_group", "work"),  # the training loop of each Ray Train worker
    ("ada2i/training/launch.py", "work", "fit"),
    ("ada2i/training/fit.py", "fit", "train_step"),
    ("ada2i/training/step.py", "train_step", "network"),  # the model, alone or in DDP
    ("ada2i/model/ada2i.py", "forward", None),
]
PATHS = {
    "flow": [("pipelines/train.py", "train_ada2i", "train"), *COMMON],
    "command": [("ada2i/cli/training.py", "train", "train"), *COMMON],
}
MOST_CALLS, MOST_FILES = 8, 6


def function(path: str, name: str) -> ast.FunctionDef:
    """Return a function of a file, at the top level or in a class."""
    tree = ast.parse((ROOT / path).read_text())
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name]
    assert len(found) == 1, f"{path} must define {name} once"
    return found[0]


def names(node: ast.AST) -> set[str]:
    """Return the names that a function uses, without what its helpers use."""
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} | {
        n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)
    }


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_each_function_reaches_the_next_one_directly(path: list[tuple[str, str, str | None]]) -> None:
    for file, name, following in path:
        assert following is None or following in names(function(file, name)), f"{file}: {name} must use {following}"


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_the_path_is_short(path: list[tuple[str, str, str | None]]) -> None:
    assert len(path) - 1 <= MOST_CALLS
    assert len({file for file, _, _ in path}) <= MOST_FILES


def test_the_job_enters_at_drive() -> None:
    text = (ROOT / "ada2i" / "training" / "launch.py").read_text()
    assert 'JOB = "ada2i.training.launch:drive"' in text


def test_the_documentation_lists_the_path() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    listed = re.findall(r"^\| \d \| `([\w.]+)` \| `([\w/.]+)` \|", text, re.MULTILINE)
    assert listed == [(name, file) for file, name, _ in PATHS["flow"]]
