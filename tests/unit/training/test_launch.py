"""Waiting for a cluster that can hold a run."""

import pytest

from ada2i.config import ResourceConfig
from ada2i.errors import ResourceError
from ada2i.training import launch


def test_a_node_that_comes_back_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_REPLACEMENT_SECONDS", 30.0)
    states = iter([{"CPU": 1.0}, {"CPU": 1.0}, {"CPU": 2.0}])
    assert launch._wait_for_resources(ResourceConfig(workers=2), lambda: next(states)) is False


def test_a_node_that_does_not_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_REPLACEMENT_SECONDS", 0.0)
    with pytest.raises(ResourceError, match="needs 2 CPUs, but the cluster has 1"):
        launch._wait_for_resources(ResourceConfig(workers=2), lambda: {"CPU": 1.0})
