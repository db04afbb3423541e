"""A loss costs time, and nothing else: weights equal those of an undisturbed run to the last bit, and nothing is left.

Apart from kills there are requests to leave, SIGTERM, which cost not even a step.
"""

import os
import signal
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch

from ada2i import storage
from ada2i.errors import PreemptedError
from ada2i.jobs.client import connect
from ada2i.jobs.events import Event
from ada2i.registry.versions import versions
from ada2i.training.launch import launch
from infra.stack import Stack
from pipelines import train as flows
from pipelines.hooks import Follower
from tests.faults.test_outage import outage
from tests.runs import (
    SLOW,
    KillOnce,
    final_weights,
    gone,
    job_of,
    listener,
    live_actor,
    prepared,
    remains,
    same_weights,
    seed_result,
    worker_pid,
)

pytestmark = pytest.mark.integration

EPOCHS = list(range(1, 41))
OUTAGE_SECONDS = 8.0


@pytest.fixture(scope="module")
def address(stack: Stack) -> str:
    return stack.environment()["RAY_API_SERVER_ADDRESS"]


@pytest.fixture(scope="module")
def undisturbed(address: str, root: str) -> dict[str, torch.Tensor]:
    uri = prepared(root, "undisturbed")
    launch(job_of(uri), listener(lambda _: None))
    return final_weights(uri)


@pytest.mark.smoke
def test_killed_worker(address: str, root: str, undisturbed: dict[str, torch.Tensor]) -> None:
    uri = prepared(root, "killed-worker")
    killer = KillOnce(3, lambda: worker_pid("killed-worker", rank=1))
    launch(job_of(uri), listener(killer))
    assert killer.killed is not None
    check_end(uri, undisturbed)


def test_killed_controller(address: str, root: str, undisturbed: dict[str, torch.Tensor]) -> None:
    uri = prepared(root, "killed-controller")
    killer = KillOnce(3, lambda: live_actor("TrainController"))
    launch(job_of(uri), listener(killer))
    assert killer.killed is not None
    check_end(uri, undisturbed)


@pytest.mark.smoke
def test_a_worker_that_gets_sigterm_leaves_after_a_checkpoint(
    address: str, root: str, undisturbed: dict[str, torch.Tensor]
) -> None:
    uri = prepared(root, "preempted-worker")
    killer = KillOnce(3, lambda: worker_pid("preempted-worker", rank=1), signal.SIGTERM)
    launch(job_of(uri), listener(killer))
    assert killer.killed is not None
    assert gone(killer.killed)
    assert killer.epochs == EPOCHS  # none twice
    check_end(uri, undisturbed)


def test_a_driver_that_gets_sigterm_leaves_after_a_checkpoint(
    address: str, root: str, undisturbed: dict[str, torch.Tensor]
) -> None:
    uri = prepared(root, "preempted-driver")
    killer = KillOnce(3, lambda: driver_pid(address), signal.SIGTERM)
    with pytest.raises(PreemptedError, match=r"was requested to leave, and left after step \d+\. Run again"):
        launch(job_of(uri), listener(killer))
    assert all(job.status.is_terminal() for job in connect(address).list_jobs())
    launch(job_of(uri), listener(killer))
    assert killer.epochs == EPOCHS  # none twice
    check_end(uri, undisturbed)


def test_s3_that_is_away_for_a_while(
    stack: Stack, address: str, root: str, undisturbed: dict[str, torch.Tensor]
) -> None:
    uri = prepared(root, "outage", **{"resources.checkpoint_minutes": 0.002})

    with ThreadPoolExecutor(1) as pool:
        away: list[Future[None]] = []

        def cut(event: Event | str) -> None:
            if isinstance(event, dict) and event["kind"] == "epoch" and not away:
                away.append(pool.submit(hold, stack))

        launch(job_of(uri), listener(cut))
        away[0].result()
    check_end(uri, undisturbed)


def hold(stack: Stack) -> None:
    with outage(stack, OUTAGE_SECONDS):
        pass


def check_end(uri: str, undisturbed: dict[str, torch.Tensor]) -> None:
    assert same_weights(final_weights(uri), undisturbed)
    assert [record.epoch for record in seed_result(uri).history] == EPOCHS
    assert remains(uri) == set()


def driver_pid(address: str) -> int:
    (live,) = [job for job in connect(address).list_jobs() if not job.status.is_terminal()]
    assert live.driver_info is not None
    return int(live.driver_info.pid)


def test_killed_driver_through_the_flows_retry(
    address: str, root: str, undisturbed: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect(address)
    killers: list[KillOnce] = []
    follow = Follower.__call__

    def follow_and_kill(self: Follower, event: Event | str) -> None:
        follow(self, event)
        killers[0](event)

    killers.append(KillOnce(3, lambda: driver_pid(address)))
    monkeypatch.setattr(Follower, "__call__", follow_and_kill)
    overrides = {name: value for name, value in SLOW.items() if name != "training.seeds"}
    version = flows.train_ada2i(features="demo", overrides=overrides, seeds=[1], model="killed-driver", root=root)
    assert killers[0].killed is not None
    found = versions(root, "killed-driver")
    assert [(v.number, v.seed) for v in found] == [(1, 1)]
    assert version == storage.join(root, "registry", "killed-driver", "versions", "1")
    assert same_weights(final_weights(found[0].run_uri), undisturbed)
    attempts = [job for job in client.list_jobs() if (job.metadata or {}).get("run_id") == found[0].run_id]
    assert sorted(str(job.status) for job in attempts) == ["FAILED", "SUCCEEDED"]


def test_interrupted_caller_leaves_no_job(address: str, root: str) -> None:
    uri = prepared(root, "interrupted")

    def interrupt(event: object) -> None:
        if isinstance(event, dict) and event["kind"] == "epoch":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch(job_of(uri), listener(interrupt))
    jobs = connect(address).list_jobs()
    assert all(job.status.is_terminal() for job in jobs)
    assert os.environ["RAY_API_SERVER_ADDRESS"] == address
