"""Checkpoints: all that a resumed run needs, complete or invisible, and loaded without executing anything."""

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ada2i import checkpoint, storage
from ada2i.balance.none import NoBalancer
from ada2i.checkpoint import MANIFEST, OPTIMIZER, STATE, WEIGHTS, EpochPart, Rng, TrainCursor, TrainState
from ada2i.config import NoBalance
from ada2i.errors import DataError, DivergenceError, IntegrityError
from ada2i.presets import resolve
from ada2i.records import FeatureInfo, FileEntry, FolderManifest, put_folder_file

FEATURES = FeatureInfo(
    uri="file:///features", dataset="d", fingerprint="f", synthetic=True, labels=("a", "b"), widths={"text": 3}
)


def state(seed: int) -> TrainState:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Linear(5, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05, weight_decay=1e-3, foreach=True)
    scheduler = ReduceLROnPlateau(optimizer, mode="min", factor=0.5, patience=1)
    return TrainState(model, optimizer, scheduler, NoBalancer(NoBalance()))


def train(what: TrainState, steps: range) -> None:
    """Take some steps; the scheduler sees a loss that stalls, so that it acts."""
    for step in steps:
        batch = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
        what.optimizer.zero_grad()
        what.model(batch).square().sum().backward()
        what.optimizer.step()
        if what.scheduler:
            what.scheduler.step(1.0)


def progress(step: int, best_step: int = 0) -> TrainCursor:
    return TrainCursor(
        config=resolve(preset="reference", settings="demo", overrides={}),
        features=FEATURES,
        rng=Rng(seed=1, step=step),
        epoch=step,
        step=step,
        best_epoch=best_step,
        best_step=best_step,
        best_dev=None,
        stale_epochs=0,
        history=(),
    )


def weights(what: TrainState) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in what.model.state_dict().items()}


def same(ours: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return ours.keys() == other.keys() and all(torch.equal(ours[name], other[name]) for name in ours)


def stored_file(folder: Path, name: str) -> Path:
    """Return the path of a checkpoint's file, whose name begins with its digest."""
    (path,) = folder.glob(f"????????????????-{name}")
    return path


def rewrite(folder: Path, name: str, data: bytes) -> None:
    """Replace a file and its entry in the manifest: what someone would do who means harm."""
    uri = folder.as_uri()
    stored = stored_file(folder, name).name
    manifest = FolderManifest.load(storage.join(uri, MANIFEST))
    entries = manifest.files | {stored: put_folder_file(uri, stored, data)}
    storage.put(storage.join(uri, MANIFEST), FolderManifest(files=entries).to_json())


def test_continuing_equals_never_having_stopped(tmp_path: Path) -> None:
    whole = state(seed=1)
    train(whole, range(4))  # the scheduler has borne one bad epoch, and would bear no second
    uri = checkpoint.save(tmp_path.as_uri(), whole, progress(4))
    train(whole, range(4, 9))

    resumed = state(seed=2)
    train(resumed, range(90, 93))  # whatever it held before must not matter
    assert checkpoint.restore(uri, resumed) == progress(4)
    train(resumed, range(4, 9))
    assert same(weights(resumed), weights(whole))
    rates = [what.optimizer.param_groups[0]["lr"] for what in (resumed, whole)]
    assert rates[0] == rates[1] < 0.05 / 4  # the scheduler acted before and after the stop


def test_restores_every_bit_of_the_optimizer(tmp_path: Path) -> None:
    saved, restored = state(seed=1), state(seed=2)
    train(saved, range(3))
    checkpoint.restore(checkpoint.save(tmp_path.as_uri(), saved, progress(3)), restored)
    ours, other = (what.optimizer.state_dict()["state"] for what in (restored, saved))
    assert ours.keys() == other.keys() == set(range(6))
    for index, slots in other.items():
        assert slots.keys() == {"step", "exp_avg", "exp_avg_sq"}
        for key, value in slots.items():
            assert torch.equal(ours[index][key], value)
            assert ours[index][key].dtype == value.dtype


def test_progress_and_weights_can_be_read_alone(tmp_path: Path) -> None:
    saved = state(seed=1)
    uri = checkpoint.save(tmp_path.as_uri(), saved, progress(7, best_step=7))
    assert checkpoint.load_progress(uri) == progress(7, best_step=7)
    assert same(checkpoint.load_weights(uri), weights(saved))


def test_a_crash_before_the_manifest_leaves_nothing_visible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, what = tmp_path.as_uri(), state(seed=1)
    assert checkpoint.latest_step(base) is None
    checkpoint.save(base, what, progress(4))

    def crash_at_manifest(uri: str, data: bytes) -> None:
        raise KeyboardInterrupt("killed")

    with monkeypatch.context() as patch:
        patch.setattr(storage, "put_if_absent", crash_at_manifest)
        with pytest.raises(KeyboardInterrupt, match="killed"):
            checkpoint.save(base, what, progress(8))
    assert stored_file(tmp_path / "000000008", WEIGHTS).exists()
    assert checkpoint.latest_step(base) == 4
    train(what, range(1))
    uri = checkpoint.save(base, what, progress(8))  # the step comes again
    assert checkpoint.latest_step(base) == 8
    assert same(checkpoint.load_weights(uri), weights(what))


@pytest.mark.parametrize("late", [False, True], ids=["before the write", "during the write"])
def test_the_manifest_of_an_older_attempt_whose_files_are_gone_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    base, what, put = tmp_path.as_uri(), state(seed=1), storage.put_if_absent
    place = storage.join(base, "000000004", MANIFEST)
    stale = FolderManifest(files={"gone": FileEntry(size=1, sha256=storage.digest(b"x"))}).stored()
    if late:
        monkeypatch.setattr(storage, "put_if_absent", lambda uri, data: put(place, stale) and put(uri, data))
    else:
        storage.put(place, stale)
    uri = checkpoint.save(base, what, progress(4))
    assert checkpoint.check(uri).step == 4
    assert same(checkpoint.load_weights(uri), weights(what))


def test_sweep_deletes_what_is_older(tmp_path: Path) -> None:
    base, what = tmp_path.as_uri(), state(seed=1)
    for step in (10, 20, 1000):
        checkpoint.save(base, what, progress(step))
    storage.put(storage.join(base, "000000015", WEIGHTS), b"of a writer that was killed")
    checkpoint.sweep(base, [20])
    assert storage.children(base) == ["000000020", "000001000"]  # an attempt that is further on
    checkpoint.sweep(base, [20], later=True)
    assert storage.children(base) == ["000000020"]


def test_a_crash_during_a_sweep_never_leaves_a_broken_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, what = tmp_path.as_uri(), state(seed=1)
    for step in (10, 20):
        checkpoint.save(base, what, progress(step))

    def crash(uri: str) -> None:
        raise KeyboardInterrupt("killed")

    with monkeypatch.context() as patch:
        patch.setattr(storage, "delete_folder", crash)
        with pytest.raises(KeyboardInterrupt, match="killed"):
            checkpoint.sweep(base, [20])
    assert checkpoint.latest_step(base) == 20
    assert not (tmp_path / "000000010" / MANIFEST).exists()
    checkpoint.sweep(base, [20])
    assert storage.children(base) == ["000000020"]


def test_a_late_writer_of_a_step_changes_nothing_of_the_newer_attempts_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, ours, late = tmp_path.as_uri(), state(seed=1), state(seed=2)
    train(ours, range(2))
    train(late, range(2))
    uri = checkpoint.save(base, ours, progress(2))
    looks, exists = iter([False]), storage.exists  # the late writer looked before the manifest existed
    monkeypatch.setattr(storage, "exists", lambda uri: next(looks, True) and exists(uri))
    assert checkpoint.save(base, late, progress(2)) == uri
    monkeypatch.undo()
    assert checkpoint.restore(uri, state(seed=3)) == progress(2)
    assert same(checkpoint.load_weights(uri), weights(ours))


@pytest.mark.parametrize("name", [WEIGHTS, OPTIMIZER.format(slot="exp_avg"), STATE])
def test_a_checkpoint_that_lacks_a_part_is_refused(tmp_path: Path, name: str) -> None:
    what = state(seed=1)
    train(what, range(1))
    uri = checkpoint.save(tmp_path.as_uri(), what, progress(1))
    manifest = FolderManifest.load(storage.join(uri, MANIFEST))
    rest = {found: entry for found, entry in manifest.files.items() if found != manifest.stored_name(name)}
    storage.put(storage.join(uri, MANIFEST), FolderManifest(files=rest).to_json())
    with pytest.raises(DataError, match=re.escape(f"{uri} must be a checkpoint with {name}, but its manifest lists")):
        checkpoint.restore(uri, state(seed=2))


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    what = state(seed=1)
    train(what, range(1))
    uri = checkpoint.save(tmp_path.as_uri(), what, progress(1))
    other = state(seed=2)
    model = torch.nn.Sequential(*list(other.model.children())[:-1])
    with pytest.raises(DataError, match="must hold the weights and optimizer state of this run's model"):
        checkpoint.restore(uri, replace(other, model=model))


def test_a_snapshot_is_what_it_was(tmp_path: Path) -> None:
    what = state(seed=1)
    train(what, range(3))
    before, snapshot = weights(what), checkpoint.take(what, progress(3))
    train(what, range(3, 5))
    assert same(checkpoint.load_weights(checkpoint.write(tmp_path.as_uri(), snapshot)), before)


def test_a_snapshot_reuses_the_memory_of_an_unused_one() -> None:
    what = state(seed=1)
    train(what, range(2))
    old = checkpoint.take(what, progress(2))
    places = {name: {key: t.data_ptr() for key, t in tensors.items()} for name, tensors in old.tensors.items()}
    train(what, range(2, 3))
    new = checkpoint.take(what, progress(3), over=old)
    assert {name: {key: t.data_ptr() for key, t in found.items()} for name, found in new.tensors.items()} == places
    assert same(new.tensors[WEIGHTS], weights(what))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_is_not_finite_is_never_written(tmp_path: Path, number: float) -> None:
    broken = progress(3).model_copy(update={"part": EpochPart(steps=1, sums={"loss": [1.0], "ratio": [1.0, number]})})
    with pytest.raises(DivergenceError, match="The metrics up to step 3 of seed 1 must be finite"):
        checkpoint.save(tmp_path.as_uri(), state(0), broken)
    assert list(tmp_path.iterdir()) == []


def test_weights_alone_can_be_written(tmp_path: Path) -> None:
    what = state(seed=1)
    train(what, range(2))
    uri = checkpoint.write(tmp_path.as_uri(), checkpoint.take(what, progress(2), optimizer=False))
    assert sorted(name.split("-")[-1] for name in storage.children(uri)) == [MANIFEST, STATE, WEIGHTS]
    assert same(checkpoint.load_weights(uri), weights(what))
    assert checkpoint.load_progress(uri) == progress(2)


@pytest.mark.parametrize("name", [WEIGHTS, OPTIMIZER.format(slot="exp_avg"), STATE])
def test_a_flipped_byte_is_refused(tmp_path: Path, name: str) -> None:
    what = state(seed=1)
    train(what, range(1))
    uri = checkpoint.save(tmp_path.as_uri(), what, progress(1))
    path = stored_file(tmp_path / "000000001", name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(IntegrityError, match=re.escape(f"{uri}/{path.name} must hold the {len(data)} bytes")):
        checkpoint.restore(uri, state(seed=2))


class Payload:
    """Creates a file as soon as someone unpickles it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", [WEIGHTS, OPTIMIZER.format(slot="exp_avg_sq")])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_refused_and_never_run(tmp_path: Path, name: str, *, zipped: bool) -> None:
    saved = state(seed=1)
    train(saved, range(1))
    uri = checkpoint.save(tmp_path.as_uri(), saved, progress(1))
    buffer = io.BytesIO()
    torch.save({"0.weight": Payload(tmp_path / "run")}, buffer, _use_new_zipfile_serialization=zipped)
    rewrite(tmp_path / "000000001", name, buffer.getvalue())
    with pytest.raises(DataError, match=re.escape(f"{uri}/{name} must be safetensors")):
        checkpoint.restore(uri, state(seed=2))
    assert not (tmp_path / "run").exists()


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    uri = checkpoint.save(tmp_path.as_uri(), state(seed=1), progress(1))
    stored = stored_file(tmp_path / "000000001", STATE).read_bytes()
    stored = stored.replace(b'"schema_version": 2', b'"schema_version": 9')
    rewrite(tmp_path / "000000001", STATE, stored)
    with pytest.raises(
        DataError, match=r"must be of schema version 2, but: `progress\.schema_version`: .* found 9\. Resume"
    ):
        checkpoint.load_progress(uri)


class Remembering(NoBalancer):
    """A method with a state."""

    def __init__(self, value: float) -> None:
        super().__init__(NoBalance())
        self.memory = torch.full((2, 3), value)

    def state(self) -> dict[str, Tensor]:
        return {"memory": self.memory}

    def load(self, state: Mapping[str, Tensor]) -> None:
        self.memory = state.get("memory", torch.zeros(2, 3))


def test_the_balancers_state_is_stored_and_missing_in_older_checkpoints(tmp_path: Path) -> None:
    plain, other = state(1), state(2)
    train(plain, range(1))
    saved, restored = (replace(one, balancer=Remembering(seed)) for seed, one in enumerate((plain, other), 1))
    checkpoint.restore(checkpoint.save(tmp_path.as_uri(), saved, progress(1)), restored)
    assert torch.equal(restored.balancer.state()["memory"], torch.ones(2, 3))
    checkpoint.restore(checkpoint.save(tmp_path.as_uri(), plain, progress(2)), restored)
    assert torch.equal(restored.balancer.state()["memory"], torch.zeros(2, 3))


def test_the_state_of_a_scheduler_that_training_does_not_use_is_ignored(tmp_path: Path) -> None:
    saved = state(1)
    train(saved, range(4))
    restored = replace(state(2), scheduler=None)
    uri = checkpoint.save(tmp_path.as_uri(), saved, progress(4))
    assert checkpoint.restore(uri, restored) == progress(4)
    without = checkpoint.save(tmp_path.as_uri(), restored, progress(5))
    assert checkpoint.restore(without, restored) == progress(5)


def test_sums_without_names_are_those_of_older_checkpoints() -> None:
    part = EpochPart.model_validate({"steps": 2, "sums": [float(n) for n in range(13)], "seconds": 1.0})
    assert part.sums == {
        "classification_loss": [0.0],
        "modal_loss": [1.0],
        "feature_loss": [2.0],
        "loss": [3.0],
        "gradient_norm": [4.0],
        "encoder_gradient_norm": [5.0, 6.0],
        "ratio": [7.0, 8.0],
        "coefficient": [9.0, 10.0],
        "gate_share": [11.0, 12.0],
    }
    assert EpochPart.model_validate({"steps": 0, "sums": [], "seconds": 0.0}) == EpochPart()
