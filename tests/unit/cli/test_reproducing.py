"""`ada2i reproduce`: what it refuses, and what it prints and writes of a study that is trained."""

import json
from pathlib import Path

import pytest

from ada2i import storage
from ada2i.studies.job import Worker
from ada2i.studies.request import StudySpec, prepare_study
from tests.runs import run_uri
from tests.unit.cli.commands import Run, ok, refused
from tests.unit.data.tables import written
from tests.unit.training.small import TINY


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--presets", "best"], "`preset` must be one of reference"),
        (["--modalities", "tx"], "`--modalities` must be a combination of the letters t (text)"),
        (["--ablations", "no_head"], "`--ablations` must be none, all, or some of no_afw"),
        (["--vary", "model.amw.scale"], "`--vary` takes FIELD=V1,V2"),
        (["--seeds", "0"], "`--seeds` must be a count of at least 1"),
        (["--seeds", "00"], "`--seeds` must be a count of at least 1"),
        (["--seeds", "1,x"], "`--seeds` must be a count of at least 1"),
        (["--set", "training.epoch=5"], "did you mean `training.epochs`?"),
        (["--allow", "copies"], "`--allow` must name codes of findings"),
    ],
)
def test_refuses(run: Run, root: Path, demo: str, arguments: list[str], message: str) -> None:
    assert message in refused(run, "reproduce", "demo", demo, "--root", str(root), *arguments)
    assert written(root) == []


def test_a_folder_that_is_a_file(run: Run, root: Path, demo: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    message = refused(run, "reproduce", "demo", demo, "--root", str(root), "--out", str(tmp_path / "file"))
    assert "`--out` must name a folder" in message


def test_a_trained_study_is_printed_and_written(run: Run, root: Path, demo: str, tmp_path: Path) -> None:
    fields = {name: value for name, value in TINY.items() if name != "training.seeds"} | {"training.epochs": 1}
    spec = StudySpec(
        dataset="demo", features=demo, presets=("reference",), modalities="ta,t", seeds=(1, 2), overrides=fields
    )
    for cell in prepare_study(spec, root=str(root)).cells:
        uri = run_uri(storage.normalise(str(root)), str(cell.run_id))
        assert [Worker().train(uri, seed, False)[2] for seed in spec.seeds] == [None, None]
        Worker().evaluate(uri)
    options = [part for name, value in fields.items() for part in ("--set", f"{name}={json.dumps(value)}")]
    places = ["--out", str(tmp_path / "out"), "--root", str(root)]
    grid = ["--presets", "reference", "--modalities", "ta,t", "--seeds", "2"]
    shown = ok(run, "reproduce", "demo", demo, *grid, *options, *places)
    study = json.loads(ok(run, "reproduce", "demo", demo, *grid, *options, *places, "--json"))
    for row in study["rows"]:
        assert f"{row['measured']['weighted_f1']['mean']:.4f}" in shown
    assert "SYNTHETIC" in shown
    assert json.loads((tmp_path / "out" / "table.json").read_bytes()) == study
