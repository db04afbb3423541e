"""A killed worker or driver costs time, and nothing else: weights equal those of an undisturbed run to the last bit."""

import os

import pytest
import torch

from ada2i import storage
from ada2i.jobs.client import connect
from ada2i.jobs.events import Event
from ada2i.registry.versions import versions
from ada2i.training.launch import launch
from infra.stack import Stack
from pipelines import train as flows
from tests.runs import SLOW, KillOnce, final_weights, prepared, seed_result, worker_pid

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def address(stack: Stack) -> str:
    return stack.environment()["RAY_API_SERVER_ADDRESS"]


@pytest.fixture(scope="module")
def undisturbed(address: str, root: str) -> dict[str, torch.Tensor]:
    uri = prepared(root, "undisturbed")
    launch(uri, address=address, on_event=lambda _: None)
    return final_weights(uri)


def test_killed_worker(address: str, root: str, undisturbed: dict[str, torch.Tensor]) -> None:
    uri = prepared(root, "killed-worker")
    killer = KillOnce(3, lambda: worker_pid("killed-worker", rank=1))
    launch(uri, address=address, on_event=killer)
    assert killer.killed is not None
    weights = final_weights(uri)
    assert weights.keys() == undisturbed.keys()
    assert all(torch.equal(weights[name], undisturbed[name]) for name in weights)
    assert [record.epoch for record in seed_result(uri).history] == list(range(1, 17))


def test_killed_driver_through_the_flows_retry(
    address: str, root: str, undisturbed: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect(address)
    killers: list[KillOnce] = []
    follow = flows.Follower.__call__

    def driver_pid() -> int:
        live = [job for job in client.list_jobs() if not job.status.is_terminal()]
        assert len(live) == 1
        assert live[0].driver_info is not None
        return int(live[0].driver_info.pid)

    def follow_and_kill(self: flows.Follower, event: Event | str) -> None:
        follow(self, event)
        killers[0](event)

    killers.append(KillOnce(3, driver_pid))
    monkeypatch.setattr(flows.Follower, "__call__", follow_and_kill)
    overrides = {name: value for name, value in SLOW.items() if name != "training.seeds"}
    version = flows.train_ada2i(features="demo", overrides=overrides, seeds=[1], model="killed-driver", root=root)
    assert killers[0].killed is not None
    found = versions(root, "killed-driver")
    assert [(v.number, v.seed) for v in found] == [(1, 1)]
    assert version == storage.join(root, "registry", "killed-driver", "versions", "1")
    weights = final_weights(found[0].run_uri)
    assert all(torch.equal(weights[name], undisturbed[name]) for name in weights)
    attempts = [job for job in client.list_jobs() if (job.metadata or {}).get("run_id") == found[0].run_id]
    assert sorted(str(job.status) for job in attempts) == ["FAILED", "SUCCEEDED"]


def test_interrupted_caller_leaves_no_job(address: str, root: str) -> None:
    uri = prepared(root, "interrupted")

    def interrupt(event: object) -> None:
        if isinstance(event, dict) and event["kind"] == "epoch":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch(uri, address=address, on_event=interrupt)
    jobs = connect(address).list_jobs()
    assert all(job.status.is_terminal() for job in jobs)
    assert os.environ["RAY_API_SERVER_ADDRESS"] == address
