"""Import directions are contracts in pyproject.toml; each package names its public modules in ``__all__``."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = sorted(path.parent.name for path in (ROOT / "ada2i").glob("*/__init__.py"))
MOST_PUBLIC = 14


def test_contracts_are_kept() -> None:
    tool = Path(sys.executable).with_name("lint-imports")
    found = subprocess.run([tool, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    assert " 0 broken" in found.stdout


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Yield package and module of everything that a file imports from packages of ``ada2i``."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or node.module is None or not node.module.startswith("ada2i"):
            continue
        for name in [f"{node.module}.{alias.name}" for alias in node.names]:
            _, package, *rest = name.split(".")
            if package in PACKAGES and rest:
                yield package, rest[0]


def package_of(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return parts[1] if parts[0] == "ada2i" and len(parts) > 2 else parts[0]


def test_no_package_imports_a_private_module_of_another() -> None:
    files = [path for folder in ("ada2i", "pipelines", "infra") for path in (ROOT / folder).rglob("*.py")]
    public = {package: set(getattr(importlib.import_module(f"ada2i.{package}"), "__all__", ())) for package in PACKAGES}
    wrong = [
        f"{path.relative_to(ROOT)} imports ada2i.{package}.{module}"
        for path in files
        for package, module in imports(path)
        if package != package_of(path) and module not in public[package]
    ]
    assert wrong == []


@pytest.mark.parametrize("package", PACKAGES)
def test_public_modules_exist_and_are_few(package: str) -> None:
    public = getattr(importlib.import_module(f"ada2i.{package}"), "__all__", [])
    assert len(public) <= (MOST_PUBLIC if package != "storage" else 25)  # storage exports functions, not modules
    folder = ROOT / "ada2i" / package
    missing = [
        name
        for name in public
        if not (folder / f"{name}.py").exists()
        and not (folder / name).is_dir()
        and not hasattr(importlib.import_module(f"ada2i.{package}"), name)
    ]
    assert missing == []


@pytest.mark.parametrize(
    "modules",
    [
        "ada2i.cli",
        "pipelines.drift, pipelines.extract, pipelines.predict, pipelines.promote, pipelines.train, pipelines.tune",
        "ada2i.registry.exporter, ada2i.training.backend, ada2i.training.launch, ada2i.training.reporter",
    ],
)
def test_commands_flows_and_the_driver_of_training_start_without_torch(modules: str) -> None:
    code = f"import sys, {modules}; print([name for name in ('torch', 'fastapi') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
