"""Process groups, rank, world size and sums over ranks; without a process group, a single rank."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

Address = tuple[str, int]  # host, port

_TIMEOUT = timedelta(minutes=30)  # a lost rank is detected at once; this allows for slow storage


@dataclass(frozen=True)
class Place:
    """A rank's place in its group; by default the only rank.

    Attributes:
        rank: This process's rank.
        world: Number of ranks.
        local_rank: Its rank among those of its node.
        local_world: Number of ranks on its node.
        host: IP address of its node, as seen from other nodes.
        share: Returns rank 0's argument on every rank.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    host: str = "127.0.0.1"
    share: Callable[[Address | None], Address | None] = lambda address: address


@contextmanager
def process_group(place: Place, *, backend: str) -> Iterator[None]:
    """Join the ranks of a run into the default process group while the block runs.

    The store of rank 0 listens on its node's address only; torch's own set-up lets it listen on all interfaces.

    Args:
        place: This rank's place in the group.
        backend: ``gloo`` or ``nccl``.
    """
    if place.world == 1:
        yield
        return
    listener = socket.create_server((place.host, 0)) if place.rank == 0 else None
    address = place.share((place.host, listener.getsockname()[1]) if listener else None)
    assert address is not None
    store = dist.TCPStore(  # type: ignore[attr-defined]
        *address,
        world_size=place.world,
        is_master=place.rank == 0,
        timeout=_TIMEOUT,
        master_listen_fd=listener.detach() if listener else None,
    )
    dist.init_process_group(backend, store=store, rank=place.rank, world_size=place.world, timeout=_TIMEOUT)
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Return this process's rank; 0 without a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of ranks; 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Sum a tensor over all ranks, in place; every rank gets the same bits."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def from_rank_zero(number: int, device: torch.device) -> int:
    """Return rank 0's number on every rank."""
    tensor = torch.tensor([number], dtype=torch.int64, device=device)
    if world_size() > 1:
        dist.broadcast(tensor, src=0)
    return int(tensor.item())


def barrier() -> None:
    """Wait until every rank has called this."""
    if world_size() > 1:
        dist.barrier()
