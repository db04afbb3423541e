"""A study on the session's cluster: trained as Ray tasks once, half of it resumed, and read when repeated."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ada2i import storage
from ada2i.checkpoint import checkpoint_uri, latest_step, load_progress
from ada2i.errors import PreemptedError
from ada2i.jobs import client
from ada2i.records import RunRequest, RunResult
from ada2i.store import Store
from ada2i.studies.job import Worker
from ada2i.studies.progress import StudyProgress
from ada2i.studies.request import StudySpec, prepare_study, write_study
from ada2i.studies.rows import Study
from infra.stack import Stack
from tests.integration.test_train import run_cli
from tests.integration.test_tune import driver_pid
from tests.runs import run_uri, seed_uri

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
    job = write_study(root, cells)
    assert job is not None
    with StudyProgress(job.uri) as progress:
        client.run(job, address=os.environ["RAY_API_SERVER_ADDRESS"], on_event=progress)
    assert (progress.done, progress.total) == (4, 4)
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


def test_a_study_that_gets_sigterm_leaves_after_a_checkpoint(stack: Stack, root: str) -> None:
    address, epochs = os.environ["RAY_API_SERVER_ADDRESS"], 150
    changed = {"training.epochs": epochs, "training.early_stopping_epochs": epochs}
    spec = StudySpec(
        dataset="demo", features="demo", presets=("reference",), modalities="ta", seeds=(1, 2), overrides=changed
    )
    cells = prepare_study(spec, root=root).cells
    run = Store.open(root).run(str(cells[0].run_id))
    job = write_study(root, cells)
    assert job is not None

    def terminate() -> None:
        """Send the driver SIGTERM once both seeds are being trained."""
        deadline = time.monotonic() + 120
        while not all(storage.children(run.seed(seed).best) for seed in (1, 2)) and time.monotonic() < deadline:
            time.sleep(0.1)
        os.kill(driver_pid(stack, job.uri.rsplit("/", 1)[1]), signal.SIGTERM)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(terminate)
        with pytest.raises(PreemptedError, match="requested to leave, and left after 0 tasks"):
            client.run(job, address=address, on_event=lambda _: None)
    for seed in (1, 2):
        folder = run.seed(seed)
        assert not folder.is_trained()
        left = load_progress(checkpoint_uri(folder.checkpoints, latest_step(folder.checkpoints) or 0))
        assert left.step > 0

    client.run(job, address=address, on_event=lambda _: None)
    assert run.result().seeds[0].history[-1].epoch == epochs
    assert write_study(root, cells) is None
