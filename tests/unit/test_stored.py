"""Objects that an older version wrote still load: features, runs, checkpoints, versions, aliases, predictions."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from ada2i import checkpoint
from ada2i.data.manifest import open_features
from ada2i.inference.models import load_model
from ada2i.inference.versions import load_config, open_version
from ada2i.loader.split_data import open_split
from ada2i.prediction.records import PredictionManifest, PredictionRequest
from ada2i.records import EpochRecord
from ada2i.registry.aliases import history
from ada2i.registry.verify import verify
from ada2i.store import RunFolder, Store
from ada2i.training.fit import fit
from ada2i.training.reporter import Reporter
from ada2i.training.task import Task

STORED = Path(__file__).resolve().parents[1] / "stored" / "store"
RUN = "20261128-101458-1a3ec2"

# Classification loss, disparity ratio of text and gradient norm of the epoch that was interrupted, as commit 99db8f2
# measured them in a run without an interruption.
UNINTERRUPTED = (6.438043892383575, 1.5515441596508026, 35.26997423171997)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A copy of the stored root."""
    shutil.copytree(STORED, tmp_path / "store")
    return Store.open(str(tmp_path / "store"))


def features_of(store: Store) -> str:
    (folder,) = (STORED / "features" / "stored").iterdir()
    return f"{store.root}/features/stored/{folder.name}"


def test_features(store: Store) -> None:
    features = open_features(features_of(store))
    assert {name: split.dialogues for name, split in features.manifest.splits.items()} == {
        "train": 12,
        "dev": 3,
        "gate": 2,
        "test": 3,
    }
    split = open_split(features, "train", ("text", "audio", "visual"), shuffle_gib=0.5)
    assert split.batch([0], [0]).features["text"].shape == (4, 6)


@pytest.mark.parametrize("run_id", [RUN, "interrupted"])
def test_requests_and_results(store: Store, run_id: str) -> None:
    run = store.run(run_id)
    request = run.request()
    assert (request.run_id, request.config.model.hidden_dim, request.features.dataset) == (run_id, 8, "stored")
    if run_id == RUN:
        result = run.result()
        assert len(result.seeds[0].history) == 3
        assert run.seed(1).result() == result.seeds[0]
        assert "weighted_f1" in result.test_summary


@pytest.mark.parametrize(("folder", "step"), [("checkpoints", 6), ("best", 2)])
def test_checkpoints(store: Store, folder: str, step: int) -> None:
    uri = checkpoint.checkpoint_uri(f"{store.run(RUN).seed(1).uri}/{folder}", step)
    assert checkpoint.load_progress(uri).step == step
    assert all(torch.isfinite(weight).all() for weight in checkpoint.load_weights(uri).values())


def test_a_run_that_was_interrupted_in_an_epoch_resumes(store: Store, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "store", tmp_path / "again")
    first, second = resumed(store), resumed(Store.open(str(tmp_path / "again")))
    assert [record.step for record in first] == [4, 8, 12]
    whole, *others = [(each.classification_loss, each.ratio["text"], each.gradient_norm) for each in first]
    assert whole == pytest.approx(UNINTERRUPTED, rel=1e-4)
    # Later epochs draw other random numbers than the version that began the run, but always the same ones.
    assert others == [(each.classification_loss, each.ratio["text"], each.gradient_norm) for each in second[1:]]


def resumed(store: Store) -> list[EpochRecord]:
    """Resume the interrupted run to its end; return its epochs."""
    run = RunFolder(store.run("interrupted").uri)
    request, features = run.request(), open_features(features_of(store))
    train, dev = (
        open_split(features, split, request.config.model.modalities, shuffle_gib=0.5) for split in ("train", "dev")
    )
    task = Task(request.config, request.features, 1, train, dev, run.seed(1).uri, torch.device("cpu"))
    return list(fit(task, Reporter()).history)


def test_versions_and_aliases(store: Store) -> None:
    assert verify(store.root, "stored") == []
    assert [(move.number, move.by) for move in history(store.root, "stored", "champion")] == [(1, "test")]
    uri, version = open_version(store.root, "stored@champion")
    assert load_config(uri, version).preset == "corrected"
    assert load_model(uri, version).modalities == ("text", "audio", "visual")


def test_predictions(store: Store) -> None:
    (folder,) = (STORED / "predictions").iterdir()
    uri = store.prediction(folder.name)
    assert PredictionRequest.load(f"{uri}/request.json").version.name == "stored@1"
    manifest = PredictionManifest.load(f"{uri}/manifest.json")
    assert manifest.utterances == pq.read_table(folder / "part-00000.parquet").num_rows == 80
