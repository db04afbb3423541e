"""`ada2i distil`: a student that a file describes, and what is refused."""

from pathlib import Path

import pytest

from ada2i.data.manifest import open_features
from ada2i.registry.versions import find
from tests.unit.cli.commands import Run, ok, refused
from tests.unit.data.tables import written
from tests.unit.prediction.tiny import registered


@pytest.fixture
def teachers(root: Path, demo: str) -> list[str]:
    for preset in ("corrected", "paper"):
        registered(root.as_uri(), open_features(demo).info(), preset)
    return ["tiny@1", "tiny@2"]


def test_a_student_of_a_file_is_trained_and_registered(
    run: Run, root: Path, teachers: list[str], tmp_path: Path
) -> None:
    fields = ["--set", "training.epochs=1", "--set", "model.hidden_dim=8", "--set", "model.afw.rank=2"]
    file = tmp_path / "student.json"
    file.write_text(ok(run, "config", "--preset", "causal", "--settings", "demo", *fields))
    places = ["--student", str(file), "--local", "--seeds", "3", "--model", "student", "--root", str(root)]
    code, shown, err = run("distil", *teachers, *places)
    assert code == 0, err
    assert "mean probabilities of tiny@1, tiny@2" in " ".join(shown.split())
    version = find(root.as_uri(), "student")
    assert (version.preset, version.seeds) == ("causal", (3,))
    assert [teacher.name for teacher in version.teachers] == teachers


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tiny@9"], "must hold a version tiny@9"),
        (["tiny@1", "--student", "best"], "`preset` must be one of reference"),
        (["tiny@1", "--student", "nowhere.json"], "nowhere.json must be a file with a config"),
        (["tiny@1", "--student", "empty.json"], "empty.json must hold a whole config"),
        (["tiny@1", "--weight", "0"], "must learn from them, but `loss.distillation` is 0"),
        (["tiny@1", "--temperature", "0"], "`loss.distillation_temperature`"),
        (["tiny@1", "tiny@1"], "tiny@1 is named twice"),
    ],
)
@pytest.mark.usefixtures("teachers")
def test_refuses(run: Run, root: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "empty.json").write_text("{}")
    before = written(root)
    assert message in refused(run, "distil", *arguments, "--local", "--root", str(root))
    assert written(root) == before
