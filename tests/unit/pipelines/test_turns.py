"""Which flow run may train a model: one at a time, also when many ask at once, and again after a retry."""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ada2i import storage
from ada2i.store import Store
from pipelines import turns
from pipelines.turns import take_turn


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The flow runs that have ended."""
    found: set[str] = set()
    monkeypatch.setattr(turns, "_has_ended", found.__contains__)
    monkeypatch.setattr(turns, "get_run_logger", lambda: logging.getLogger("flow"))
    monkeypatch.setattr(turns, "_POLL_SECONDS", 0.01)
    return found


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path))


def test_a_free_model_and_a_retried_run_do_not_wait(store: Store, ended: set[str]) -> None:
    assert [take_turn(store, "mine", "a"), take_turn(store, "mine", "a"), take_turn(store, "other", "b")] == [False] * 3
    assert storage.children(store.turns("mine")) == ["1"]
    ended.add("a")
    assert not take_turn(store, "mine", "b")


def test_a_run_waits_until_the_one_before_has_ended(
    store: Store, ended: set[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            ended.add("a")

    monkeypatch.setattr("time.sleep", sleep)
    caplog.set_level(logging.INFO)
    take_turn(store, "mine", "a")
    assert take_turn(store, "mine", "b")
    assert len(looks) == 3
    assert [record.message for record in caplog.records] == [
        "Flow run a trains mine: this run waits until it has ended."
    ]


def test_of_many_runs_one_trains_at_a_time(store: Store, ended: set[str]) -> None:
    training: list[str] = []
    most: list[int] = []

    def train(run: str) -> None:
        take_turn(store, "mine", run)
        training.append(run)
        most.append(len(training))
        training.remove(run)
        ended.add(run)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(train, [f"run-{number}" for number in range(24)]))
    assert len(ended) == 24
    assert set(most) == {1}
    assert len(storage.children(store.turns("mine"))) == 24


@pytest.mark.parametrize("content", [b"../../else", b"", b"\xff\xfe"])
def test_what_names_no_flow_run_holds_no_turn(store: Store, content: bytes) -> None:
    storage.put(storage.join(store.turns("mine"), "7"), content)
    storage.put(storage.join(store.turns("mine"), "\u00b2"), b"a name that is no number")
    assert not take_turn(store, "mine", "a")
    assert storage.get(storage.join(store.turns("mine"), "8")) == b"a"
