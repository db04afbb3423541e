"""Gradients summed in shared memory: the bits that DDP's own sums give, and nothing left behind."""

import errno
import gc
import os
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ada2i.training import shared_memory
from ada2i.training.shared_memory import share_gradients
from tests.faults.processes import spawn

PASSES = 5


def run(task: Callable[..., None], folder: Path, world: int, *arguments: Any) -> list[int | None]:
    """Run a function on some ranks; return their exit codes."""
    ranks = [spawn(as_rank, task, folder, rank, world, arguments) for rank in range(world)]
    for rank in ranks:
        rank.join(120)
    return [rank.exitcode for rank in ranks]


def as_rank(task: Callable[..., None], folder: Path, rank: int, world: int, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    store = (folder / "store").as_uri()
    dist.init_process_group("gloo", store, rank=rank, world_size=world, timeout=timedelta(seconds=60))
    task(folder, *arguments)
    dist.destroy_process_group()


def replicated() -> DistributedDataParallel:
    """A network of several buckets."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 300), nn.Tanh(), nn.Linear(300, 300), nn.Tanh(), nn.Linear(300, 3))
    return DistributedDataParallel(model, gradient_as_bucket_view=True, bucket_cap_mb=0.1)


def gradients(network: DistributedDataParallel, number: int, *, more: bool = False) -> list[Tensor]:
    """Return the averaged gradients of a pass on this rank's rows; ``more``: summed up with those of the last."""
    if not more:
        network.zero_grad(set_to_none=True)
    network(torch.randn(5, 7, generator=torch.Generator().manual_seed(10 * number + dist.get_rank()))).sum().backward()
    return [p.grad.clone() for p in network.parameters() if p.grad is not None]


def mapped() -> str:
    gc.collect()
    return Path("/proc/self/maps").read_text() + "".join(
        os.readlink(x) for x in Path("/proc/self/fd").iterdir() if x.is_symlink()
    )


def compare(folder: Path) -> None:
    own, shared = replicated(), replicated()
    assert share_gradients(shared)
    assert "ada2i-gradients" in mapped()
    expected = [gradients(own, number) for number in range(PASSES)]
    if dist.get_rank() == 1:
        read_late()
    found = [gradients(shared, number) for number in range(PASSES)]
    assert all(torch.equal(one, other) for one, other in zip(chain(*expected), chain(*found), strict=True))
    with own.no_sync(), shared.no_sync():
        first = gradients(own, 7), gradients(shared, 7)
    second = gradients(own, 8, more=True), gradients(shared, 8, more=True)
    for one, other in (first, second):
        assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))
    del shared
    assert "ada2i-gradients" not in mapped()
    assert share_gradients(again := replicated())
    assert all(torch.equal(*pair) for pair in zip(gradients(again, 0), expected[0], strict=True))


def read_late() -> None:
    """Have this rank still read when the other is about to write the next pass."""
    add = torch.add

    def late(*tensors: Tensor, out: Tensor) -> Tensor:
        time.sleep(0.1)
        return add(*tensors, out=out)

    torch.add = late  # type: ignore[assignment]


def test_two_ranks_get_the_bits_that_ddp_gives_them(tmp_path: Path) -> None:
    assert run(compare, tmp_path, 2) == [0, 0]


def decline(folder: Path) -> None:
    assert not share_gradients(replicated())
    assert "ada2i-gradients" not in mapped()


def test_more_ranks_are_left_to_ddp(tmp_path: Path) -> None:
    """Their sum would depend on its order, and so on where they are."""
    assert run(decline, tmp_path, 3) == [0, 0, 0]


def refuse(*_: object) -> Any:
    raise OSError(errno.ENOMEM, "no memory")


def hide(folder: Path, how: str) -> None:
    if dist.get_rank() == 1 and how == "one sees nobody":
        shared_memory._map = lambda *_: None
    if dist.get_rank() == 1 and how == "another file has its number":
        shared_memory._create = lambda *_: os.open(folder / "other", os.O_RDWR | os.O_CREAT)
    if how == "no such memory":
        os.memfd_create = refuse  # type: ignore[assignment]
    if dist.get_rank() == 0 and how == "no memory left":
        os.posix_fallocate = refuse
    network = replicated()
    assert not share_gradients(network)
    expected = gradients(replicated(), 0)
    assert all(torch.equal(one, other) for one, other in zip(expected, gradients(network, 0), strict=True))
    assert "ada2i-gradients" not in mapped()


@pytest.mark.parametrize("how", ["one sees nobody", "another file has its number", "no such memory", "no memory left"])
def test_where_a_rank_sees_not_all_ddp_goes_on_as_it_was(tmp_path: Path, how: str) -> None:
    assert run(hide, tmp_path, 2, how) == [0, 0]


def die(_: Tensor) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def lose(folder: Path) -> None:
    network = replicated()
    assert share_gradients(network)
    gradients(network, 0)
    if dist.get_rank() == 1:  # when the first buckets are on their way
        next(network.parameters()).register_hook(die)  # type: ignore[no-untyped-call]
    with pytest.raises(RuntimeError):
        gradients(network, 1)
    (folder / "told").touch()
    os._exit(0)  # the group cannot be left in good order


def test_a_lost_rank_is_an_error_on_the_other(tmp_path: Path) -> None:
    assert run(lose, tmp_path, 2) == [0, -signal.SIGKILL]
    assert (tmp_path / "told").exists()
