"""The resources that a run needs, and how a cluster's are read."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from pydantic import ValidationError

from ada2i.config import ResourceConfig
from ada2i.errors import ResourceError, UnreachableError
from ada2i.jobs.cluster import HEAD_CPUS
from ada2i.jobs.events import parse
from ada2i.jobs.resources import Placement, capacity, check_resources, fitting, visible_gpus, wait_for_resources


def wanted(**fields: object) -> ResourceConfig:
    return ResourceConfig.model_validate(fields)


def resources(workers: int = 2, cpus: float = 1.0, device: str = "auto") -> ResourceConfig:
    return wanted(workers=workers, cpus_per_worker=cpus, device=device)


@pytest.mark.parametrize(
    ("fields", "available", "workers", "device", "reason"),
    [
        ({}, {"CPU": 2.0}, 2, "cpu", "there is no GPU"),
        ({}, {"CPU": 1.0}, 1, "cpu", "there is no GPU"),
        ({}, {"CPU": 2.0, "GPU": 1.0}, 1, "cuda", "one worker for each GPU"),
        ({}, {"CPU": 16.0, "GPU": 4.0}, 4, "cuda", "one worker for each GPU"),
        ({}, {"CPU": 3.0, "GPU": 4.0}, 3, "cuda", "one worker for each 1 CPU, which are fewer than the GPUs"),
        ({"device": "cpu"}, {"CPU": 2.0, "GPU": 2.0}, 2, "cpu", "`resources.device` is cpu"),
        ({"device": "cuda"}, {"CPU": 2.0, "GPU": 1.0}, 1, "cuda", "one worker for each GPU"),
        ({"workers": 1}, {"CPU": 2.0, "GPU": 2.0}, 1, "cuda", "`resources.workers` is 1"),
        ({"workers": 2}, {"CPU": 2.0, "GPU": 2.0}, 2, "cuda", "`resources.workers` is 2"),
        ({"workers": 4, "cpus_per_worker": 0.5}, {"CPU": 2.0}, 4, "cpu", "there is no GPU"),
        ({"workers": 2, "device": "cpu"}, {"CPU": 2.0, "GPU": 1.0}, 2, "cpu", "`resources.device` is cpu"),
        ({"min_workers": 3}, {"CPU": 4.0, "GPU": 3.0}, 3, "cuda", "one worker for each GPU"),
    ],
)
def test_where_to_train(
    fields: dict[str, object], available: dict[str, float], workers: int, device: str, reason: str
) -> None:
    found = check_resources(wanted(**fields), available)
    assert (found.workers, found.device, found.reason) == (workers, device, reason)
    assert found.facts == {"workers": workers, "device": device, "reason": reason}
    assert found.missing(available) == ""


@pytest.mark.parametrize(
    ("wanted", "available", "message"),
    [
        (resources(workers=3), {"CPU": 2.0}, r"`resources.workers` = 3 with 1 CPU each needs 3 CPUs, .* has 2\."),
        (resources(workers=3, cpus=0.75), {"CPU": 2.0}, r"with 0.75 CPU each needs 2.25 CPUs"),
        (resources(workers=1), {}, r"has 0\. Request fewer"),
        (resources(), {"CPU": 8.0, "GPU": 1.0}, r"2 workers need 2 GPUs, one per worker, .* has 1\. Leave .*workers=1"),
        (resources(), {"CPU": 8.0, "GPU": 1.0}, r"or set `resources.device=cpu` to use CPUs"),
        (resources(device="cuda"), {"CPU": 8.0, "GPU": 1.0}, r"2 workers need 2 GPUs, one per worker, .* has 1\."),
        (resources(device="cuda"), {"CPU": 8.0}, r"cuda needs 2 GPUs, but the cluster has 0\. Add a node with a GPU"),
        (ResourceConfig(max_cpus=8.0, workers=9), {"CPU": 2.0}, r"needs 9 CPUs, .* has 8 at most"),
        (ResourceConfig(max_gpus=4, workers=5), {"CPU": 8.0, "GPU": 1.0}, r"5 workers need 5 GPUs, .* has 4\."),
        (ResourceConfig(gpus_per_worker=0.5, workers=2), {"CPU": 8.0, "GPU": 1.0}, "NCCL refuses two workers on one"),
    ],
)
def test_too_little(wanted: ResourceConfig, available: dict[str, float], message: str) -> None:
    with pytest.raises(ResourceError, match=message):
        check_resources(wanted, available)


def test_a_share_of_a_gpu_is_for_single_ranks_and_workers_that_share() -> None:
    alone = check_resources(ResourceConfig(gpus_per_worker=0.25), {"CPU": 4.0, "GPU": 2.0})
    assert (alone.workers, alone.gpus) == (1, 0.25)
    several = check_resources(ResourceConfig(workers=5), {"CPU": 5.0, "GPU": 2.0}, shared=True)
    assert (several.gpus, several.needed["GPU"]) == (0.3333, 2.0)
    by_default = check_resources(ResourceConfig(), {"CPU": 5.0, "GPU": 3.0}, shared=True)
    assert (by_default.workers, by_default.gpus) == (3, 1.0)


def test_a_cluster_that_can_grow_is_judged_by_what_it_may_become() -> None:
    growing = ResourceConfig(workers=4, max_gpus=4, max_cpus=16)
    found = check_resources(growing, {"CPU": 2.0, "GPU": 1.0})
    assert (found.workers, found.device) == (4, "cuda")
    assert found.missing({"CPU": 2.0, "GPU": 1.0}) == "4 CPUs (now 2) and 4 GPUs (now 1)"
    assert found.missing({"CPU": 16.0, "GPU": 4.0}) == ""
    first = check_resources(ResourceConfig(max_gpus=16, max_cpus=64), {"CPU": 2.0})  # no node of the GPU group is up
    assert (first.workers, first.device) == (1, "cuda")
    assert first.missing({"CPU": 2.0}) == "1 GPUs (now 0)"


def test_a_run_that_may_shrink_needs_no_more_than_its_least() -> None:
    shrinking = ResourceConfig(workers=4, min_workers=2)
    assert check_resources(shrinking, {"CPU": 2.0}).needed == {"CPU": 2.0}
    assert check_resources(shrinking, {"CPU": 4.0, "GPU": 2.0}).needed == {"CPU": 2.0, "GPU": 2.0}
    with pytest.raises(ResourceError, match=r"`resources.min_workers` = 2 with 1 CPU each needs 2 CPUs, .* has 1\."):
        check_resources(shrinking, {"CPU": 1.0})
    with pytest.raises(ValidationError, match="`min_workers` must be at most `workers` = 4, but is 5"):
        ResourceConfig(workers=4, min_workers=5)


def test_a_private_head_has_this_machines_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    assert capacity()["CPU"] == HEAD_CPUS
    with pytest.raises(ResourceError, match="Request fewer with `--workers`"):
        check_resources(resources(workers=HEAD_CPUS + 1), capacity())


@contextmanager
def dashboard(status: int, answer: Any) -> Iterator[str]:
    """A server that answers every question alike."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_live_nodes_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        {"state": "ALIVE", "resources_total": {"CPU": 4.0, "GPU": 1.0}},
        {"state": "DEAD", "resources_total": {"CPU": 64.0}},
        {"state": "ALIVE", "resources_total": {"CPU": 2.0}},
    ]
    with dashboard(200, {"data": {"result": {"result": nodes}}}) as address:
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", address)
        assert capacity() == {"CPU": 6.0, "GPU": 1.0}


def test_a_cluster_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    with dashboard(401, {}) as address:
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", address)
        with pytest.raises(UnreachableError, match=r"must answer at .* but sent 401"):
            capacity()


def test_a_cluster_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:9")
    with pytest.raises(UnreachableError, match=r"must answer at .* but nothing does"):
        capacity()


@pytest.mark.parametrize(
    ("requested", "available", "may_pass"),
    [
        ({"workers": 1}, {}, True),  # a head that was restarted, before its own node has joined
        ({"workers": 2}, {"CPU": 1.0}, True),
        ({"device": "cuda"}, {"CPU": 8.0}, True),
        ({"workers": 4, "device": "cuda"}, {"CPU": 8.0, "GPU": 2.0}, True),
        ({"workers": 2, "device": "cuda", "gpus_per_worker": 0.5}, {"CPU": 8.0, "GPU": 1.0}, False),
    ],
)
def test_what_a_cluster_lacks_may_still_join(
    requested: dict[str, Any], available: dict[str, float], *, may_pass: bool
) -> None:
    with pytest.raises(ResourceError, match=r"needs? |must be 1 for training") as caught:
        check_resources(ResourceConfig(**requested), available)
    assert caught.value.retryable == may_pass


def test_a_node_that_comes_back_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ada2i.jobs.resources._POLL_SECONDS", 0.0)
    states = iter([{"CPU": 1.0}, {"CPU": 1.0}, {"CPU": 2.0}])
    check = partial(check_resources, ResourceConfig(workers=2))
    assert wait_for_resources(check, lambda: next(states)).workers == 2


def test_a_node_that_does_not_come_back_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ada2i.jobs.resources._REPLACEMENT_SECONDS", 0.0)
    with pytest.raises(ResourceError, match="needs 2 CPUs, but the cluster has 1"):
        wait_for_resources(partial(check_resources, ResourceConfig(workers=2)), lambda: {"CPU": 1.0})


def test_growth_is_requested_once_reported_and_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ada2i.jobs.resources._POLL_SECONDS", 0.0)
    states = iter([{"CPU": 8.0}, {"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 2.0}])
    requested: list[Placement | str] = []

    @contextmanager
    def demand(placement: Placement) -> Iterator[None]:
        requested.append(placement)
        yield
        requested.append("withdrawn")

    check = partial(check_resources, ResourceConfig(workers=2, max_gpus=2))
    found = wait_for_resources(check, lambda: next(states), minutes=1.0, demand=demand)
    assert requested == [found, "withdrawn"]
    (event,) = parse(capsys.readouterr().out)
    assert isinstance(event, dict)
    assert event["kind"] == "waiting"
    assert event["message"] == "waiting for 2 GPUs (now 0), at most 60 s more"


def test_growth_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ada2i.jobs.resources._POLL_SECONDS", 0.0)
    check = partial(check_resources, ResourceConfig(max_gpus=2))
    with pytest.raises(ResourceError, match=r"must grow within 0 minutes, but still lacks 1 GPUs \(now 0\)\. Raise"):
        wait_for_resources(check, lambda: {"CPU": 8.0}, minutes=0.0)


def test_how_many_workers_a_cluster_holds() -> None:
    assert fitting({"CPU": 8.0, "GPU": 3.0}, cpus=2.0) == 4
    assert fitting({"CPU": 8.0, "GPU": 3.0}, cpus=2.0, gpus=1) == 3
    assert fitting({"CPU": 9.0, "GPU": 2.0}, cpus=1.0, gpus=0.4) == 4
    assert fitting({"CPU": 1.0}, cpus=2.0) == 1


@pytest.mark.parametrize(
    ("listed", "count"),
    [(None, 4), ("", 0), ("1", 1), ("0,3", 2), ("0,9,1", 1), ("-1,0", 0), ("GPU-8a,MIG-1", 2), ("0,1,2,3,0", 4)],
)
def test_cuda_visible_devices_limits_the_gpus(monkeypatch: pytest.MonkeyPatch, listed: str | None, count: int) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert visible_gpus(4) == count
