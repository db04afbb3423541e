"""What rank 0 of a trial makes of peers that ended."""

from typing import Any

import pytest
import ray
from ray.exceptions import RayTaskError, WorkerCrashedError

from ada2i.errors import Ada2iError, IntegrityError
from ada2i.search import worker as tune_worker


def ended(monkeypatch: pytest.MonkeyPatch, *errors: Exception) -> None:
    def get(peer: int) -> None:
        raise errors[peer]

    def wait(peers: list[int], **_: Any) -> tuple[list[int], list[int]]:
        return peers, []

    monkeypatch.setattr(ray, "wait", wait)
    monkeypatch.setattr(ray, "get", get)


def test_a_peers_own_error_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    own = IntegrityError("shard 3 is damaged")
    raised = RayTaskError("train", "traceback", own).as_instanceof_cause()  # type: ignore[no-untyped-call]
    ended(monkeypatch, WorkerCrashedError(), raised)
    with pytest.raises(Ada2iError, match="shard 3 is damaged") as caught:
        tune_worker._raise_peers_own([0, 1])
    assert caught.value is own


def test_a_peer_that_was_killed_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    ended(monkeypatch, WorkerCrashedError())
    tune_worker._raise_peers_own([0])
    tune_worker._raise_peers_own([])
