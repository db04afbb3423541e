"""50 clients, with a promotion and a killed replica: no wrong answer, flat memory; ten minutes in ``make soak``."""

import os
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.served import MODEL, Calls, differs
from tests.serving import Server, server, wait

CLIENTS = 50
SECONDS = float(os.environ.get("SOAK_SECONDS", "90"))
MORE_MIB = 64  # that the allocator may keep


@pytest.mark.soak
def test_clients_with_a_promotion_and_a_killed_replica(tmp_path: Path) -> None:
    found = soak(Calls(tmp_path), SECONDS)
    assert found["wrong"] == 0
    assert found["statuses"].keys() <= {200, 503}
    assert found["statuses"][503] <= CLIENTS  # those that the killed replica computed; sent again, they were answered
    assert found["versions"] == {f"{MODEL}@1", f"{MODEL}@2"}
    assert found["endpoint_mib"] < MORE_MIB
    assert found["replica_mib"] < MORE_MIB


def soak(calls: Calls, seconds: float) -> dict[str, Any]:
    """Send requests; promote after a third of the time, and kill the replica after two thirds.

    Returns:
        Wrong answers, requests by status, the versions that answered, and by how many MiB memory grew: the endpoint's
        in the last nine tenths of the time, the new replica's in its last two thirds.
    """
    expected = {f"{MODEL}@{number}": calls.predicted(number) for number in (1, 2)}
    requests, stop = list(calls.vectors().items()), threading.Event()
    statuses: Counter[int] = Counter()
    versions, wrong = set(), []

    with server(calls.root, f"{MODEL}@champion") as running:

        def talk(number: int) -> None:
            count = number
            with running.client() as client:
                while not stop.is_set():
                    call, turns = requests[count % len(requests)]
                    answer = client.post("/predict", json={"turns": turns})
                    statuses[answer.status_code] += 1
                    if answer.is_success:
                        version = answer.json()["version"]
                        versions.add(version)
                        if not differs(answer.json()["turns"], expected[version][call]) < 1e-6:
                            wrong.append(call)
                        count += 1
                    else:
                        time.sleep(float(answer.headers.get("Retry-After", 0)))

        with ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(talk, number) for number in range(CLIENTS)]
            try:
                grown = _events(running, calls, seconds)
            finally:
                stop.set()
            for client in clients:
                client.result()
    return {"wrong": len(wrong), "statuses": statuses, "versions": versions, **grown}


def _events(running: Server, calls: Calls, seconds: float) -> dict[str, float]:
    (endpoint,) = running.children("ray::ServeReplica:ada2i:Endpoint")
    time.sleep(0.1 * seconds)
    before = endpoint.memory_info().rss
    time.sleep(0.23 * seconds)
    calls.promote(2, 1)
    wait(running, f"{MODEL}@2")
    time.sleep(0.33 * seconds)
    killed = running.replica()
    killed.kill()
    killed.wait(60)
    wait(running, f"{MODEL}@2")
    time.sleep(0.11 * seconds)
    fresh = running.replica()
    first = fresh.memory_info().rss
    time.sleep(0.23 * seconds)
    return {
        "endpoint_mib": (endpoint.memory_info().rss - before) / 2**20,
        "replica_mib": (fresh.memory_info().rss - first) / 2**20,
    }
