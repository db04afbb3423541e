"""Placement on a cluster of Ray whose nodes declare GPUs; they need not exist, since nothing computes on them."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from ada2i.config import ResourceConfig
from ada2i.errors import ResourceError
from ada2i.jobs.fanout import run_tasks, start_workers
from ada2i.jobs.resources import place


class Visible:
    """Reports the GPUs that Ray gave it."""

    def gpus(self) -> list[str]:
        return [str(each) for each in ray.get_gpu_ids()]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    environment = pytest.MonkeyPatch()
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        environment.delenv(name, raising=False)  # of the session's stack
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "num_gpus": 1, "include_dashboard": False})
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()  # type: ignore[no-untyped-call]
    environment.undo()


def test_one_gpu_is_used_by_default_and_two_workers_on_it_are_refused(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = place(ResourceConfig())
    assert (found.workers, found.device, found.reason) == (1, "cuda", "one worker for each GPU")
    monkeypatch.setattr("ada2i.jobs.resources._REPLACEMENT_SECONDS", 0.0)
    with pytest.raises(ResourceError, match=r"2 workers need 2 GPUs, .* has 1\. Leave"):
        place(ResourceConfig(workers=2))
    assert place(ResourceConfig(workers=2, device="cpu")).device == "cpu"


def test_workers_share_a_gpu(cluster: Any) -> None:
    found = place(ResourceConfig(workers=3), shared=True)
    pool = start_workers(Visible, (), workers=found.workers, gpus=found.gpus)
    assert list(run_tasks(pool, [("gpus", ())] * 3, last=True)) == [["0"]] * 3


def test_a_node_that_the_cluster_adds_is_waited_for(cluster: Any, capsys: pytest.CaptureFixture[str]) -> None:
    growing = ResourceConfig(workers=2, max_gpus=2)
    with pytest.raises(ResourceError, match=r"must grow within 0\.02 minutes, but still lacks 2 GPUs \(now 1\)"):
        place(growing.model_copy(update={"wait_minutes": 0.02}))
    assert "waiting for 2 GPUs (now 1)" in json.loads(capsys.readouterr().out.splitlines()[0])["message"]
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(place, growing.model_copy(update={"wait_minutes": 1.0}))
        cluster.add_node(num_cpus=2, num_gpus=1)
        assert waiting.result().workers == 2
    assert place(ResourceConfig()).workers == 2  # now one for each
