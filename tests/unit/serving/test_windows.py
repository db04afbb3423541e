"""Drift windows of a replica: which dialogues they hold, when they are written, and a store that fails or is slow."""

import logging
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ada2i import storage
from ada2i.drift import Window, keep
from ada2i.errors import UnreachableError
from ada2i.serving import windows as module
from ada2i.serving.windows import SECONDS, Windows
from tests.runs import until

MOST = 8


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def root(tmp_path: Any) -> str:
    return str(tmp_path.as_uri())


@pytest.fixture
def made(root: str, clock: Clock) -> Iterator[Windows]:
    found = Windows(root, "tiny", MOST, clock)
    yield found
    found.end()


def sums(number: int) -> list[Any]:
    """Return the sums of some dialogues of two utterances each."""
    return [np.array([2.0, 0.5])] * number


def stored(root: str, number: int = 1) -> list[Window]:
    folder = storage.join(root, "drift", "tiny", str(number), "windows")
    return [Window.load(storage.join(folder, name)) for name in sorted(storage.children(folder))]


def test_a_window_holds_the_first_dialogues_of_an_hour(root: str, made: Windows, clock: Clock) -> None:
    made.add(1, sums(5))
    assert made.wants(1)
    assert stored(root) == []
    made.add(1, sums(5))
    until(lambda: stored(root), "a stored window", every=0.01)
    (window,) = stored(root)
    assert (window.model, window.version, window.source) == ("tiny", 1, "live requests")
    assert (window.dialogues, window.sums) == (MOST, (2.0 * MOST, 0.5 * MOST))
    assert not made.wants(1)
    made.add(1, sums(20))  # of the same hour
    clock.now += SECONDS - 1
    made.close_old()
    assert not made.wants(1)
    clock.now += 1
    made.close_old()
    assert made.wants(1)
    made.add(1, sums(MOST))
    made.end()
    assert [one.dialogues for one in stored(root)] == [MOST, MOST]


def test_a_quiet_hour_is_written_once_it_has_enough_dialogues(root: str, made: Windows, clock: Clock) -> None:
    made.add(1, sums(4))
    clock.now += 2 * SECONDS
    made.close_old()
    made.add(1, sums(2))
    made.close_old()
    made.end()
    assert [one.dialogues for one in stored(root)] == [6]


def test_few_dialogues_are_never_written(root: str, made: Windows) -> None:
    made.add(1, sums(4))
    made.add(2, sums(5))
    made.close()
    made.add(1, sums(4))
    made.end()
    assert (stored(root, 1), [one.dialogues for one in stored(root, 2)]) == ([], [5])


def test_sums_that_are_not_finite_are_left_out(root: str, made: Windows) -> None:
    made.add(1, [*sums(5), np.array([2.0, np.inf]), np.array([2.0, np.nan])])
    made.end()
    assert [(one.dialogues, one.sums) for one in stored(root)] == [(5, (10.0, 2.5))]


def test_nothing_is_counted_after_the_end(root: str, made: Windows) -> None:
    made.end()
    made.add(1, sums(MOST))
    made.end()
    assert stored(root) == []


def failing(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Have the store fail a number of times, and wait no time between two tries."""
    left = [None] * times

    def fail(root: str, window: Window) -> None:
        if left:
            left.pop()
            raise UnreachableError("The store does not answer.")
        keep(root, window)

    monkeypatch.setattr(module, "keep", fail)
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.0)


def test_a_failed_write_is_tried_once_more(
    root: str, made: Windows, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failing(monkeypatch, 1)
    made.add(1, sums(MOST))
    until(lambda: stored(root), "a stored window", every=0.01)
    made.end()
    assert made.results() == {"failed": 1, "stored": 1}
    assert made.results() == {}
    assert "A drift window of tiny@1 cannot be stored: The store does not answer." in caplog.text


def test_a_window_is_dropped_after_two_tries(
    root: str, made: Windows, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failing(monkeypatch, 2)
    made.add(1, sums(MOST))
    until(lambda: "A drift window of tiny@1 is dropped." in caplog.text, "a message", every=0.01)
    made.end()
    assert (made.results(), stored(root)) == ({"failed": 2}, [])


def test_a_slow_store_delays_no_call_and_few_windows_wait(
    root: str, made: Windows, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    go_on = threading.Event()

    def slow(root: str, window: Window) -> None:
        assert go_on.wait(60)
        keep(root, window)

    monkeypatch.setattr(module, "keep", slow)
    with caplog.at_level(logging.WARNING):
        for number in range(1, 7):
            made.add(number, sums(MOST))  # returns although nothing is written
    assert [number for number in range(1, 7) if stored(root, number)] == []
    assert caplog.text.count("is dropped: the store is too slow") == 2
    go_on.set()
    made.end()
    assert [number for number in range(1, 7) if stored(root, number)] == [1, 2, 3, 4]
