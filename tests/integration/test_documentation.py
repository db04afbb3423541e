"""The documentation is executed as printed, the site is built, and the wheel works outside of the checkout."""

import csv
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import ada2i
from infra.stack import Stack
from tests.calls import write_calls

ROOT = Path(__file__).resolve().parents[2]
TUTORIALS = ROOT / "docs" / "tutorials"

pytestmark = pytest.mark.integration


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Yield language and text of the blocks of a page that a reader types; `make up` and `make down` have own tests."""
    for language, text in re.findall(r"```(sh|python)\n(.*?)```", page.read_text(), re.DOTALL):
        if not text.startswith("make "):
            yield language, text


def run_page(page: Path, folder: Path, *, root: str = "") -> str:
    """Execute all blocks of a page in a folder, in their order; return what they print.

    Args:
        page: The page.
        folder: The working directory.
        root: A root of the page's own for commands and flows; by default that of the environment.
    """
    own = {"ADA2I_ROOT": root} if root else {}
    environment = {**os.environ, **own, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    shown = []
    for language, printed in blocks(page):
        # A flow would take its root from the worker's environment.
        text = printed.replace("run train-ada2i", f"run train-ada2i --param root={root}") if root else printed
        command = ["bash", "-euo", "pipefail", "-c", text] if language == "sh" else [sys.executable, "-c", text]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        shown.append(done.stdout)
    return "\n".join(shown)


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, without a cluster or a root in the environment."""
    for name in ("RAY_API_SERVER_ADDRESS", "ADA2I_ROOT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_the_tutorial_for_recordings_works_as_printed(alone: Path) -> None:
    write_calls(alone / "calls")
    shown = run_page(TUTORIALS / "calls.md", alone)
    assert "calls@1" in shown
    assert "LoadedModel(calls@1: text 384, audio" in shown
    assert list((alone / "predictions").glob("part-*.parquet"))


def test_the_tutorial_for_research_works_as_printed(alone: Path) -> None:
    with (alone / "mosi.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        rows = ada2i.demo_table().to_pylist()
        names = list(rows[0])
        writer.writerow(names)
        for row in rows:
            writer.writerow(" ".join(map(str, cell)) if isinstance(cell, list) else cell for cell in row.values())
    shown = run_page(TUTORIALS / "research.md", alone)
    assert "balance.method=unimodal" in shown
    assert "evaluated once per seed" in shown
    assert {file.suffix for file in (alone / "study").iterdir()} >= {".md", ".csv", ".json", ".png"}


def test_the_tutorial_for_operators_works_as_printed(stack: Stack, root: str, tmp_path: Path) -> None:
    shown = run_page(TUTORIALS / "operator.md", ROOT, root=f"{root}/operator")
    assert re.search("Promoted|Refused", shown)  # the first line of the outcome
    assert "Moved: ada2i-synthetic-demo@champion 2 -> 1" in shown


def test_the_site_builds_and_its_links_lead_somewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "LoadedModel" in (tmp_path / "reference.html").read_text()
    for page in tmp_path.rglob("*.html"):
        if page.name == "404.html":
            continue
        for link in re.findall(r'(?:href|src)="([^"#]+)', page.read_text()):
            if ":" not in link:
                assert (page.parent / link).exists(), f"{page.relative_to(tmp_path)} links to {link}"


def test_the_wheel_holds_ada2i_only_and_works_without_the_checkout(alone: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(alone / "dist"), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (alone / "dist").iterdir()
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"ada2i", f"ada2i-{ada2i.__version__}.dist-info"}
    installed = alone / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(installed), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    code = (
        "import ada2i; "
        "run = ada2i.train('demo', {'training.epochs': 1}, seeds=[1], progress=False); "
        "model = ada2i.load(run.register('wheel')); "
        "print(ada2i.__file__, model.predict(model.example()).num_rows)"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=alone, env=environment, capture_output=True, text=True, check=True
    )
    assert shown.stdout.split() == [str(installed / "ada2i" / "__init__.py"), "4"]
