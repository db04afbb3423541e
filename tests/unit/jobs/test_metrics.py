"""Gauges are set again and again with their last values, since Ray drops those that are not."""

import gc
import threading
import time
from typing import Any

import pytest
import ray.util.metrics

from ada2i.jobs import metrics
from ada2i.jobs.metrics import Gauges, Metric
from tests.runs import until

METRICS = (Metric("reused", "Vectors", ("run", "modality")), Metric("versions", "Versions", ("model",)))
REUSED = ("ada2i_reused", 3.0, {"run": "r", "modality": "text"})


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float, dict[str, str]]]:
    """What was set on Ray's gauges, in order."""
    calls: list[tuple[str, float, dict[str, str]]] = []

    class Gauge:
        def __init__(self, name: str, **_: Any) -> None:
            self.name = name

        def set(self, value: float, tags: dict[str, str]) -> None:
            calls.append((self.name, value, tags))

    monkeypatch.setattr(ray.util.metrics, "Gauge", Gauge)
    monkeypatch.setattr(metrics, "_REPEAT", 0.01)
    return calls


def test_a_value_that_was_set_once_is_set_again(seen: list[Any]) -> None:
    gauges = Gauges(METRICS, run="r")
    gauges.set("reused", 3, modality="text")
    until(lambda: seen.count(REUSED) > 3, "values that are set again", every=0.01)
    assert all(call == REUSED for call in seen)


def test_the_last_value_of_each_combination_of_tags_is_repeated(seen: list[Any]) -> None:
    gauges = Gauges(METRICS, run="r")
    for value, modality in ((1, "text"), (2, "audio"), (3, "text")):
        gauges.set("reused", value, modality=modality)
    gauges.repeat()
    start = len(seen)
    until(lambda: len(seen) > start + 10, "values that are set again", every=0.01)
    assert {(value, tags["modality"]) for _, value, tags in seen[start:]} == {(3.0, "text"), (2.0, "audio")}


def test_values_that_are_gone_are_not_repeated(seen: list[Any]) -> None:
    gauges = Gauges(METRICS)
    gauges.set_all([("versions", 1, {"model": "a"}), ("versions", 2, {"model": "b"})])
    gauges.set_all([("versions", 3, {"model": "b"})])
    time.sleep(0.1)  # a repetition that had begun
    seen.clear()
    until(lambda: len(seen) > 3, "values that are set again", every=0.01)
    assert all(call == ("ada2i_versions", 3.0, {"model": "b"}) for call in seen)


def test_samples_that_cannot_be_read_leave_all_values(seen: list[Any]) -> None:
    gauges = Gauges(METRICS, run="r")
    gauges.set("reused", 3, modality="text")

    def broken() -> Any:
        yield "versions", 1, {"model": "a"}
        raise OSError("S3 is away")

    with pytest.raises(OSError, match="S3"):
        gauges.set_all(broken())
    seen.clear()
    until(lambda: REUSED in seen, "values that are set again", every=0.01)


def test_deleted_gauges_are_not_repeated(seen: list[Any]) -> None:
    before = set(threading.enumerate())
    gauges = Gauges(METRICS, run="r")
    gauges.set("reused", 3, modality="text")
    (thread,) = set(threading.enumerate()) - before
    assert thread.daemon  # it does not keep its process
    del gauges
    gc.collect()
    thread.join(20)
    assert not thread.is_alive()
