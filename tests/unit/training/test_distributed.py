"""Process groups use the interface of their node's address only, whatever the host's name resolves to."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from ada2i.training import distributed

RANK = Path(__file__).with_name("group_rank.py")
VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
needs_root = pytest.mark.skipif(
    os.geteuid() != 0
    or not shutil.which("ip")
    or subprocess.run(["unshare", "-nm", "true"], check=False).returncode != 0,
    reason="network namespaces need root",
)


def run_ranks(hosts: Sequence[str], folder: Path, prefixes: Sequence[Sequence[str]] = ((), ())) -> list[dict[str, Any]]:
    """Run two ranks at once; return what each prints."""
    commands = [
        [*prefix, sys.executable, str(RANK), str(rank), host, str(folder / "address")]
        for rank, (host, prefix) in enumerate(zip(hosts, prefixes, strict=True))
    ]
    return [json.loads(output) for output in run_together(commands)[0]]


def run_together(commands: Sequence[Sequence[str]], seconds: float = 90.0) -> tuple[list[str], list[int]]:
    """Run commands at once; return what each prints, and their exit statuses."""
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environment["PYTHONPATH"] = str(Path(__file__).parents[3])  # where tests/ is
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for command in commands]
    try:
        outputs = [process.communicate(timeout=seconds)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    return outputs, [process.returncode for process in running]


@pytest.mark.slow
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_ranks_sum_and_listen_on_their_nodes_address_alone(tmp_path: Path, host: str) -> None:
    for found in run_ranks([host, host], tmp_path):
        assert found["sum"] == 2.0
        assert set(found["listening"]) <= {"127.0.0.1", "::1"}


def test_a_single_different_bit_names_the_rank(tmp_path: Path) -> None:
    for found in run_ranks(["127.0.0.1"] * 2, tmp_path):
        assert found["differing"] == found["replaced"] == [1]
        assert found["weights"] == [0.5, 0.5]  # those of rank 0
    assert distributed.differing_ranks([torch.ones(3)]) == []


def test_variables_that_are_set_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth7")
    monkeypatch.delenv("NCCL_SOCKET_IFNAME", raising=False)
    distributed._use_interface("127.0.0.1")
    assert [os.environ[name] for name in VARIABLES] == ["eth7", "=lo"]
    monkeypatch.delenv("NCCL_SOCKET_IFNAME")
    distributed._use_interface("192.0.2.77")  # of no interface, as behind a translated address
    assert "NCCL_SOCKET_IFNAME" not in os.environ


@pytest.fixture
def hosts_file(tmp_path: Path) -> Path:
    """A hosts file as Debian and Ubuntu install it: the host's own name is another loopback address."""
    path = tmp_path / "hosts"
    path.write_text(f"127.0.0.1 localhost\n127.0.1.1 {os.uname().nodename}\n")
    return path


@pytest.fixture
def nodes() -> Iterator[list[str]]:
    """Two network namespaces that reach each other at 10.213.0.1 and 10.213.0.2."""
    names = [f"ada2i-{os.getpid()}-{n}" for n in (1, 2)]
    ends = [f"a{os.getpid()}x{n}"[-14:] for n in (1, 2)]
    try:
        for name in names:
            subprocess.run(["ip", "netns", "add", name], check=True)
        subprocess.run(["ip", "link", "add", ends[0], "type", "veth", "peer", "name", ends[1]], check=True)
        for number, (name, end) in enumerate(zip(names, ends, strict=True), 1):
            subprocess.run(["ip", "link", "set", end, "netns", name], check=True)
            for command in (
                ["ip", "addr", "add", f"10.213.0.{number}/24", "dev", end],
                ["ip", "link", "set", end, "up"],
                ["ip", "link", "set", "lo", "up"],
            ):
                subprocess.run(["ip", "netns", "exec", name, *command], check=True)
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False)


@pytest.mark.slow
@needs_root
def test_two_nodes_whose_names_resolve_to_loopback_reach_each_other(
    tmp_path: Path, nodes: list[str], hosts_file: Path
) -> None:
    mounted = ["unshare", "-m", "sh", "-c", f'mount --bind {hosts_file} /etc/hosts && exec "$@"', "sh"]
    found = run_ranks(
        ["10.213.0.1", "10.213.0.2"], tmp_path, [["ip", "netns", "exec", node, *mounted] for node in nodes]
    )
    assert [rank["sum"] for rank in found] == [2.0, 2.0]
    assert [rank["listening"] for rank in found] == [["10.213.0.1"], ["10.213.0.2"]]


def run_failing(folder: Path, how: str) -> tuple[list[str], list[int]]:
    """Run two ranks of which rank 1 fails; return what both print, and their exit statuses, within 40 s."""
    script = RANK.with_name("failing_rank.py")
    commands = [[sys.executable, str(script), str(rank), str(folder / "address"), how] for rank in (0, 1)]
    return run_together(commands, seconds=40.0)


def test_an_error_of_one_rank_reaches_the_other_in_a_sum(tmp_path: Path) -> None:
    (first, second), _ = run_failing(tmp_path, "raises")
    assert "Connection closed by peer" in first
    assert "ValueError: a damaged shard" in second  # and this rank did not wait for the other one
    assert max(float(said.split()[-2]) for said in (first, second)) < 20.0


def test_a_rank_that_hangs_is_ended_and_the_error_stays_with_the_other(tmp_path: Path) -> None:
    (first, second), status = run_failing(tmp_path, "hangs")
    assert (first, status) == ("sum 2\nnoticed\n", [1, 0])
    assert "ValueError: a damaged shard" in second


def test_a_killed_rank_is_noticed(tmp_path: Path) -> None:
    (first, _), status = run_failing(tmp_path, "killed")
    assert "RuntimeError: " in first
    assert float(first.split()[-2]) < 20.0
    assert status == [0, -9]


def test_ranks_without_an_error_end_together(tmp_path: Path) -> None:
    outputs, status = run_failing(tmp_path, "together")
    assert status == [0, 0]
    assert all("noticed" not in said for said in outputs)
