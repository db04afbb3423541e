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
from ada2i.jobs.resources import capacity, check_resources, fitting, visible_gpus, wait_for_resources


def resources(workers: int = 2, cpus: float = 1.0, device: str = "auto") -> ResourceConfig:
    return ResourceConfig.model_validate({"workers": workers, "cpus_per_worker": cpus, "device": device})


@pytest.mark.parametrize(
    ("wanted", "available", "gpu"),
    [
        (resources(), {"CPU": 2.0}, False),
        (resources(), {"CPU": 2.0, "GPU": 1.0}, False),  # fewer GPUs than workers
        (resources(), {"CPU": 2.0, "GPU": 2.0}, True),
        (resources(device="cpu"), {"CPU": 2.0, "GPU": 2.0}, False),
        (resources(device="cuda"), {"CPU": 2.0, "GPU": 2.0}, True),
        (resources(workers=4, cpus=0.5), {"CPU": 2.0}, False),
    ],
)
def test_where_to_train(wanted: ResourceConfig, available: dict[str, float], *, gpu: bool) -> None:
    assert check_resources(wanted, available) is gpu


@pytest.mark.parametrize(
    ("wanted", "available", "message"),
    [
        (resources(workers=3), {"CPU": 2.0}, r"`resources.workers` = 3 with 1 CPU each needs 3 CPUs, .* has 2\."),
        (resources(workers=3, cpus=0.75), {"CPU": 2.0}, r"with 0.75 CPU each needs 2.25 CPUs"),
        (resources(workers=1), {}, r"has 0\. Request fewer"),
        (resources(device="cuda"), {"CPU": 8.0, "GPU": 1.0}, r"cuda needs 2 GPUs, one per worker, .* has 1\."),
        (resources(device="cuda"), {"CPU": 8.0}, r"has 0\. Request fewer workers"),
    ],
)
def test_too_little(wanted: ResourceConfig, available: dict[str, float], message: str) -> None:
    with pytest.raises(ResourceError, match=message):
        check_resources(wanted, available)


def test_a_run_that_may_shrink_needs_no_more_than_its_least() -> None:
    shrinking = ResourceConfig(workers=4, min_workers=2)
    assert check_resources(shrinking, {"CPU": 2.0}) is False
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


def test_a_node_that_comes_back_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ada2i.jobs.resources._POLL_SECONDS", 0.0)
    states = iter([{"CPU": 1.0}, {"CPU": 1.0}, {"CPU": 2.0}])
    check = partial(check_resources, ResourceConfig(workers=2))
    assert wait_for_resources(check, lambda: next(states)) is False


def test_a_node_that_does_not_come_back_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ada2i.jobs.resources._REPLACEMENT_SECONDS", 0.0)
    with pytest.raises(ResourceError, match="needs 2 CPUs, but the cluster has 1"):
        wait_for_resources(partial(check_resources, ResourceConfig(workers=2)), lambda: {"CPU": 1.0})


def test_how_many_workers_a_cluster_holds() -> None:
    assert fitting({"CPU": 8.0, "GPU": 3.0}, cpus=2.0) == 4
    assert fitting({"CPU": 8.0, "GPU": 3.0}, cpus=2.0, gpus=1) == 3
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
