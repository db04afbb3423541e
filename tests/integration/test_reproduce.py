"""A study on the session's cluster: trained as Ray tasks once, half of it resumed, and read when repeated."""

import os
from pathlib import Path

import pytest

from ada2i import storage
from ada2i.jobs import client
from ada2i.records import RunRequest, RunResult, run_uri, seed_uri
from ada2i.studies.job import Worker
from ada2i.studies.progress import StudyProgress
from ada2i.studies.request import JOB, StudySpec, prepare_study, write_study
from ada2i.studies.rows import Study
from infra.stack import Stack
from tests.integration.test_train import run_cli

pytestmark = pytest.mark.integration


def test_a_study_is_trained_once(stack: Stack, root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = StudySpec(
        dataset="demo",
        features="demo",
        presets=("reference",),
        modalities="ta,t",
        seeds=(1, 2),
        overrides={"training.epochs": 2},
    )
    cells = prepare_study(spec, root=root).cells
    done = run_uri(root, str(cells[0].run_id))
    assert Worker().train(done, 1, False)[2] is None  # as an attempt that was killed would have left it
    before = storage.get(storage.join(seed_uri(done, 1), "result.json"))
    uri = write_study(root, cells)
    assert uri is not None
    with StudyProgress(cells) as progress:
        client.run(client.Job(JOB, uri), address=os.environ["RAY_API_SERVER_ADDRESS"], on_event=progress)
    assert (progress.done, progress.total, progress.problems) == (4, 4, {})
    assert storage.get(storage.join(seed_uri(done, 1), "result.json")) == before
    assert write_study(root, cells) is None
    options = ["--modalities", "ta,t", "--seeds", "2", "--set", "training.epochs=2", "--root", root]
    run_cli(
        monkeypatch, "reproduce", "demo", "demo", "--presets", "reference", *options, "--out", str(tmp_path / "out")
    )
    study = Study.model_validate_json((tmp_path / "out" / "table.json").read_bytes())
    for row in study.rows:
        place = run_uri(root, str(row.cell.run_id))
        result = RunResult.load(storage.join(place, "result.json"))
        assert row.measured is not None
        assert row.measured.weighted_f1 == result.test_summary["weighted_f1"]
        assert RunRequest.load(storage.join(place, "request.json")).config == result.config
        assert storage.exists(storage.join(place, "environment.json"))
