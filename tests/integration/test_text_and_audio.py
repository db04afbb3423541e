"""Calls with text and sound but no pictures, by every way that the README names first, with default options."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ada2i import storage
from ada2i.records import RunResult
from ada2i.registry.versions import Version, find, version_uri
from infra.stack import Stack
from tests.calls import write_calls
from tests.integration.trainings import finished_training

pytestmark = pytest.mark.integration

HERE = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_calls(tmp_path_factory.mktemp("media") / "calls")


def run(module: str, *arguments: str, root: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a module as a command with embedded defaults: no server and no cluster is configured."""
    configured = ("PREFECT_", "RAY_", "ADA2I_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(configured)}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=HERE,
        env=clean | {"ADA2I_ROOT": root, "COLUMNS": "120"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def modalities(root: str, version: Version) -> tuple[str, ...]:
    result = RunResult.load(storage.join(version_uri(root, version), "result.json"))
    return result.config.model.modalities


def test_the_main_job_takes_calls_and_trains_on_text_and_audio(calls: Path, tmp_path: Path) -> None:
    root = storage.normalise(str(tmp_path / "store"))
    ended = run("pipelines", f"corpus:folder:{calls}", root=root, PREFECT_HOME=str(tmp_path / "prefect"))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Registered version: ada2i-calls@1" in ended.stdout
    assert modalities(root, find(root, "ada2i-calls")) == ("text", "audio")


def test_a_modality_that_calls_lack_is_refused_without_a_traceback(calls: Path, tmp_path: Path) -> None:
    for module, command in (("pipelines", ()), ("ada2i", ("train",))):
        ended = run(module, *command, f"corpus:folder:{calls}", "--modalities", "tav", root=str(tmp_path / "store"))
        assert ended.returncode == 2
        assert "must hold the requested modalities, but has no visual, only text, audio" in ended.stderr
        assert "Traceback" not in ended.stdout + ended.stderr
    assert not (tmp_path / "store").exists()


def test_the_event_of_extracted_calls_trains_on_text_and_audio(stack: Stack, calls: Path) -> None:
    root = stack.environment()["ADA2I_ROOT"]
    started = datetime.now(UTC)
    parameters = ("-p", "corpus=folder", "-p", f"location={calls}")
    subprocess.run(
        [sys.executable, "-m", "prefect", "deployment", "run", "extract-features", *parameters],
        cwd=HERE,
        env={**os.environ, **stack.environment()},
        check=True,
    )
    run = finished_training(started)
    assert run.state is not None
    assert run.state_type == "COMPLETED", run.state.message
    assert run.state.name == "Refused"  # two test dialogues are too few to judge by
    version = find(root, "ada2i-calls")
    assert version.flow_run_id == str(run.id)
    assert modalities(root, version) == ("text", "audio")


def test_the_main_commands_of_the_readme_take_calls(stack: Stack, calls: Path, tmp_path: Path) -> None:
    root = f"{stack.environment()['ADA2I_ROOT']}/readme"

    def ada2i(*arguments: str, code: int = 0) -> str:
        command = [sys.executable, "-m", "ada2i", *arguments]
        environment = {**os.environ, **stack.environment(), "ADA2I_ROOT": root, "COLUMNS": "120"}
        ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == code, ended.stdout + ended.stderr
        return ended.stdout

    features = ada2i("extract", "folder", str(calls)).strip()
    ada2i("audit", features)
    quick = ("--set", "training.epochs=2")
    assert "Registered version: ada2i-calls@1" in ada2i("train", features, "--seeds", "1", *quick)
    again = ("train", f"corpus:folder:{calls}", "--seeds", "1", *quick, "--skip-unchanged", "--promote")
    assert "Refused: ada2i-calls@1 is refused as champion: 2 dialogues" in ada2i(*again)  # not trained again
    assert "/part-*.parquet" in ada2i("predict", "ada2i-calls@1", f"corpus:folder:{calls}")
    assert "ada2i-calls@1" in ada2i("registry", "list")
    assert "Dry run: champion stays without a version." in ada2i("registry", "gate", "ada2i-calls@1", code=1)
    assert (
        "linear on text + audio"
        in ada2i("registry", "open", "ada2i-calls@1", "--to", "report.html") + (tmp_path / "report.html").read_text()
    )


def test_a_watched_run_ends_with_its_outcome(stack: Stack, calls: Path) -> None:
    root = f"{stack.environment()['ADA2I_ROOT']}/watched"
    parameters = [f"features=corpus:folder:{calls}", f"root={root}", 'overrides={"training.epochs": 2}']
    options = [part for text in parameters for part in ("-p", text)]
    ended = subprocess.run(
        [sys.executable, "-m", "prefect", "deployment", "run", "train-ada2i", "--watch", *options],
        cwd=HERE,
        env={**os.environ, **stack.environment(), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = "Refused\n\nada2i-calls@1 is refused as champion: 2 dialogues to judge by; at least 10 are needed"
    assert expected in ended.stdout, ended.stdout + ended.stderr
    assert "`ada2i registry open ada2i-calls@1` shows it" in ended.stdout
