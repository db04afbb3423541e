"""Checkpoints during training: when they are due, their cost, and the effect of a failure."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ada2i import checkpoint, storage
from ada2i.errors import UnreachableError
from ada2i.training import saving
from ada2i.training.lease import Lease
from ada2i.training.saving import Saver
from tests.unit.test_checkpoint import progress, same, state, train, weights


class Clock:
    """A clock that a test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def thread_time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(saving, "time", made)
    return made


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Writing waits for it."""
    opened, real = threading.Event(), checkpoint.write

    def write(base: str, snapshot: checkpoint.Snapshot) -> str:
        assert opened.wait(30)
        return real(base, snapshot)

    monkeypatch.setattr(checkpoint, "write", write)
    yield opened
    opened.set()


def test_due_after_some_minutes_or_at_an_epochs_end_that_costs_little(tmp_path: Path, clock: Clock) -> None:
    with Saver(tmp_path.as_uri(), state(seed=1), minutes=5.0) as saver:
        assert not saver.due()
        assert saver.due(epoch_done=True)  # nothing is known of the cost yet
        saver.save(progress(1))
        saver.cost = 2.0
        clock.now += 99.0
        assert not saver.due(epoch_done=True)
        clock.now += 1.0  # 2 s of 100
        assert saver.due(epoch_done=True)
        assert not saver.due()
        clock.now += 200.0
        assert saver.due()


def test_zero_minutes_are_every_step(tmp_path: Path) -> None:
    with Saver(tmp_path.as_uri(), state(seed=1), minutes=0.0) as saver:
        for step in range(1, 4):
            assert saver.due()
            saver.start(progress(step))
    assert checkpoint.latest_step(storage.join(tmp_path.as_uri(), "checkpoints")) == 3


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path, clock: Clock, gate: threading.Event) -> None:
    what = state(seed=1)
    train(what, range(2))
    before = weights(what)
    with Saver(tmp_path.as_uri(), what, minutes=1.0) as saver:
        saver.keep_best(progress(2))
        saver.start(progress(2, best_step=2))
        train(what, range(2, 4))
        saver.keep_best(progress(4))  # another place in memory than the one that is being written
        clock.now += 3600.0
        assert not saver.due()  # one at a time
        gate.set()
    assert storage.children(tmp_path.as_uri()) == ["best", "checkpoints"]
    for name in ("best", "checkpoints"):
        uri = checkpoint.checkpoint_uri(storage.join(tmp_path.as_uri(), name), 2)
        assert same(checkpoint.load_weights(uri), before)


def test_best_weights_come_first_and_stay_until_the_next_are_there(tmp_path: Path) -> None:
    base, what = tmp_path.as_uri(), state(seed=1)
    with Saver(base, what, minutes=0.0) as saver:
        for step, best, kept in ((1, 1, [1]), (2, 1, [1]), (3, 3, [1, 3]), (4, 3, [3])):
            if step == best:
                saver.keep_best(progress(step, best_step=best))
            saver.save(progress(step, best_step=best))
            newest = [f"{number:09d}" for number in (step - 1, step) if number]
            assert storage.children(storage.join(base, "best")) == [f"{number:09d}" for number in kept]
            assert storage.children(storage.join(base, "checkpoints")) == newest


def test_the_end_leaves_the_last_and_the_best_alone(tmp_path: Path) -> None:
    base = tmp_path.as_uri()
    for orphan in ("checkpoints/000000007/weights.safetensors", "best/000000001/state.json", "best/000000009/x"):
        storage.put(storage.join(base, orphan), b"of an attempt that was killed")
    (tmp_path / "best" / ".partial-0").write_bytes(b"")
    with Saver(base, state(seed=1), minutes=5.0) as saver:
        saver.keep_best(progress(4, best_step=4))
        saver.finish(progress(6, best_step=4))
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_dir())
    assert files == ["best", "best/000000004", "checkpoints", "checkpoints/000000006"]
    assert not (tmp_path / "best" / ".partial-0").exists()


def failing(uri: str, data: bytes) -> None:
    raise UnreachableError("It must answer.")


def test_a_failed_write_delays_the_checkpoint_but_not_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    what = state(seed=1)
    with Saver(tmp_path.as_uri(), what, minutes=5.0) as saver:
        with monkeypatch.context() as patch:
            patch.setattr(storage, "put", failing)
            saver.keep_best(progress(1, best_step=1))
            saver.start(progress(1, best_step=1))
            assert saver._writing is not None
            assert saver._writing.exception() is not None  # it has ended
            assert not saver.due(epoch_done=True)
            assert "A checkpoint was not written (failure 1 in a row): It must answer." in caplog.text
        clock.now += 299.0
        assert not saver.due(epoch_done=True)
        clock.now += 1.0
        assert saver.due()
        saver.save(progress(2, best_step=1))
        assert not saver.failures
    for name, step in (("checkpoints", 2), ("best", 1)):  # the best weights of the failed write are written, too
        assert checkpoint.complete_steps(storage.join(tmp_path.as_uri(), name)) == [step]


def test_an_attempt_that_lost_its_lease_writes_and_deletes_nothing(tmp_path: Path) -> None:
    uri, what = tmp_path.as_uri(), state(seed=1)
    with Saver(uri, what, minutes=0.0, lease=Lease.take(uri)) as old:
        old.save(progress(1))
        newer = Lease.take(uri)
        with Saver(uri, what, minutes=0.0, lease=newer) as successor:
            successor.save(progress(2))
            before = sorted(tmp_path.rglob("*"))
            old.save(progress(7))
            old.finish(progress(8))
            assert old.lost
            assert not old.due()
            assert sorted(tmp_path.rglob("*")) == before
            assert not successor.lost
    assert "attempt 2" in old.lease.lost().message if old.lease else False


def start_and(ending: BaseException | None, root: Path) -> None:
    with Saver(root.as_uri(), state(seed=1), minutes=5.0) as saver:
        saver.start(progress(1))
        if ending:
            raise ending


def test_a_failure_surfaces_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "put", failing)
    with pytest.raises(UnreachableError, match="It must answer"):
        start_and(None, tmp_path)


def test_a_failure_never_hides_what_ended_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "put", failing)
    with pytest.raises(KeyboardInterrupt, match="killed"):
        start_and(KeyboardInterrupt("killed"), tmp_path)
