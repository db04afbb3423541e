"""What a run ran on: code, job, packages; no environment variable."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ada2i import environment


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=anna", "-c", "user.email=anna@example.invalid"]
    return subprocess.run(
        ["git", "-C", str(folder), *who, *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package with one file in a checkout with one commit."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    package = tmp_path / "checkout" / "package"
    package.mkdir(parents=True)
    (package / "code.py").write_text("one\n")
    git(package.parent, "init", "--quiet")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "--quiet", "--no-gpg-sign", "--message", "first")
    return package


def test_the_commit_of_a_checkout(package: Path) -> None:
    commit = git(package, "rev-parse", "HEAD")
    assert len(commit) == 40
    assert environment.revision(package) == commit
    (package.parent / "result.json").write_text("{}")
    assert environment.revision(package) == commit


@pytest.mark.parametrize("name", ["code.py", "new.py"])
def test_code_that_differs_from_the_commit(package: Path, name: str) -> None:
    (package / name).write_text("two\n")
    assert environment.revision(package) == f"{git(package, 'rev-parse', 'HEAD')}-dirty"


def test_an_installed_package_has_no_commit(package: Path) -> None:
    installed = package.parent / "site-packages" / "package"
    shutil.copytree(package, installed)
    assert environment.revision(installed) is None


def test_no_commit_yet_and_no_git(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty" / "package").mkdir(parents=True)
    git(tmp_path / "empty", "init", "--quiet")
    assert environment.revision(tmp_path / "empty" / "package") is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.revision(package) is None


def test_an_image_says_what_it_was_built_from(package: Path, tmp_path: Path) -> None:
    built = tmp_path / "image" / "package"
    shutil.copytree(package, built)
    (built.parent / "REVISION").write_text("\n")
    assert environment.revision(built) is None
    (built.parent / "REVISION").write_text("0123abc\n")
    assert environment.revision(built) == "0123abc"
    (package.parent / "REVISION").write_text("0123abc\n")
    assert environment.revision(package) == git(package, "rev-parse", "HEAD")


def test_facts(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-to-be-recorded")
    monkeypatch.setattr(environment, "_PACKAGE", package)
    data = environment.environment({"ray_job_id": "run-a-0"}, [environment.machine_facts()])
    facts = json.loads(data)
    assert facts["code"] == git(package, "rev-parse", "HEAD")
    assert facts["ray_job_id"] == "run-a-0"
    assert facts["python"] == sys.version.split()[0]
    assert {"torch", "ray", "numpy"} <= set(facts["packages"])
    assert b"not-to-be-recorded" not in data
    monkeypatch.setattr(environment, "_PACKAGE", package / "nowhere")
    assert "code" not in json.loads(environment.environment({"ray_job_id": "run-a-0"}, [environment.machine_facts()]))


def test_machines_are_those_of_the_ranks() -> None:
    small, large = {"cpus": 2, "gpus": []}, {"cpus": 16, "gpus": ["a GPU"]}
    same = json.loads(environment.environment({}, [large, large]))
    assert (same["gpus"], "machines" in same) == (["a GPU"], False)
    mixed = json.loads(environment.environment({}, [large, small, large]))
    assert mixed["cpus"] == 16
    assert mixed["machines"] == [{**large, "workers": 2}, {**small, "workers": 1}]
