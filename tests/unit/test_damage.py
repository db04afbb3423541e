"""One flipped byte in any object of features, checkpoints, runs and versions: loading refuses, and names the object."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ada2i import checkpoint, storage
from ada2i.balance import make_balancer
from ada2i.data.manifest import open_features, read_shard
from ada2i.environment import environment
from ada2i.errors import DataError
from ada2i.inference.models import load_checkpoint
from ada2i.records import Baselines, FileEntry, Interval, RunRequest, RunResult, SeedResult, TestResult
from ada2i.registry.verify import verify
from ada2i.registry.versions import register
from ada2i.training.evaluate import evaluate_run
from ada2i.training.fit import fit
from ada2i.training.update import make_optimizer
from tests.unit.training.small import Listener, tiny_task

RUN = "runs/r1"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with features, and a run that was trained, evaluated and registered."""
    folder = tmp_path_factory.mktemp("whole")
    task = tiny_task(folder, f"store/{RUN}/seed-5", training__epochs=1)
    root = folder / "store"
    request = RunRequest(run_id="r1", config=task.config, features=task.features)
    storage.put((root / RUN / "request.json").as_uri(), request.stored())
    storage.put((root / RUN / "environment.json").as_uri(), environment({"ray_job_id": "r1-0"}, [{}]))
    fit(task, Listener())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))  # decoded shards
        evaluate_run((root / RUN).as_uri())
    register((root / RUN).as_uri(), root=str(root), model="m")
    return root


@pytest.fixture
def root(whole: Path) -> Iterator[Path]:
    """The same root again; what a test breaks is put back by the next one."""
    copy = whole.parent / "copy"
    shutil.copytree(whole, copy)
    yield copy
    shutil.rmtree(copy)


def load_all(root: Path) -> None:
    """Load everything below a root, in the ways in which the package does."""
    for manifest in sorted(root.glob("features/*/*/manifest.json")):
        features = open_features(str(manifest.parent))
        for entry in features.manifest.shards:
            read_shard(features, entry)
    RunRequest.load((root / RUN / "request.json").as_uri())
    SeedResult.load((root / RUN / "seed-5" / "result.json").as_uri())
    TestResult.load((root / RUN / "seed-5" / "test.json").as_uri())
    Baselines.load((root / RUN / "baselines.json").as_uri())
    for manifest in sorted((root / RUN).glob("seed-5/*/*/manifest.json")):
        (restore if manifest.parts[-3] == "checkpoints" else load_checkpoint)(manifest.parent.as_uri())
    register((root / RUN).as_uri(), root=str(root), model="again")
    if problems := verify(str(root), "m"):
        raise DataError(problems[0].message)


def restore(uri: str) -> None:
    """Load a whole checkpoint."""
    model = load_checkpoint(uri)
    optimizer = make_optimizer(model, learning_rate=1e-3, weight_decay=1e-4)
    balancer = make_balancer(checkpoint.load_progress(uri).config)
    checkpoint.restore(uri, checkpoint.TrainState(model, optimizer, ReduceLROnPlateau(optimizer), balancer))


def moved(root: Path, whole: Path) -> None:
    """Have a copy's run speak of itself, not of what it was copied from."""
    place = (root / RUN / "result.json").as_uri()
    result = RunResult.model_validate_json(RunResult.load(place).to_json().replace(bytes(whole), bytes(root)))
    storage.put(place, result.stored())


def objects(root: Path) -> list[Path]:
    return sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())


def test_an_intact_root_loads(root: Path, whole: Path) -> None:
    moved(root, whole)
    load_all(root)
    kinds = {path.parts[0] for path in objects(whole)}
    assert kinds == {"features", "runs", "registry"}
    assert len(objects(whole)) > 20


@pytest.mark.slow
def test_every_flipped_byte_is_named(root: Path, whole: Path) -> None:
    moved(root, whole)
    unseen = []
    for name in objects(root):
        if name.parent.name == "attempts":  # read only while another attempt trains the same seed
            continue
        path = root / name
        before = path.read_bytes()
        for position in {place % len(before) for place in (0, 5, 40, len(before) // 2, -1)}:
            path.write_bytes(bytes([*before[:position], before[position] ^ 1, *before[position + 1 :]]))
            if name.name not in refusal(root):
                unseen.append(f"{name}, byte {position}: {refusal(root)}")
            shutil.rmtree(root / "registry" / "again", ignore_errors=True)
        path.write_bytes(before)
    assert unseen == []
    load_all(root)


def refusal(root: Path) -> str:
    """Return what loading says, or nothing where it takes what is there."""
    try:
        load_all(root)
    except DataError as problem:
        return problem.message
    return ""


def test_a_seal_is_a_line_that_older_records_lack(tmp_path: Path) -> None:
    record = FileEntry(size=3, sha256="0" * 64)
    uri = (tmp_path / "record").as_uri()
    for data in (record.to_json(), record.stored()):
        storage.put(uri, data)
        assert FileEntry.load(uri) == record
    assert record.stored() == record.stored()
    assert len(record.stored().splitlines()) == len(record.to_json().splitlines()) + 1


def test_a_seal_of_another_record_is_refused(tmp_path: Path) -> None:
    uri = (tmp_path / "record").as_uri()
    seal = Interval(low=0.0, high=1.0, level=0.95, resamples=9).stored().splitlines()[1]
    lines = FileEntry(size=3, sha256="ab" * 32).stored().splitlines(keepends=True)
    storage.put(uri, b"".join([lines[0], seal + b"\n", *lines[2:]]))
    with pytest.raises(DataError, match=r"record must have the SHA-256 that it carries as its seal, "):
        FileEntry.load(uri)
