"""Process groups, rank, world size and sums over ranks; without a process group, a single rank."""

import ipaddress
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psutil
import torch
import torch.distributed as dist
from torch import Tensor

log = logging.getLogger(__name__)

Address = tuple[str, int]  # host, port

_INTERNET = (socket.AF_INET, socket.AF_INET6)
_TIMEOUT = timedelta(minutes=10)  # of sums over ranks: how long the data of one rank may take
_HOST_TIMEOUT = timedelta(minutes=30)  # of what waits for storage, such as a checkpoint
_POLL_SECONDS = 0.5
_GRACE_SECONDS = 10.0  # between another rank's failure and the end of a process that hangs in a sum
_FAILED = "failed"  # the store's key for it

_host: dist.ProcessGroup | None = None  # of the same ranks, by gloo: for numbers and waits of the host


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
def process_group(place: Place, *, backend: str, lost: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Join the ranks of a run into the default process group while the block runs.

    Store, gloo and NCCL use the interface with the node's address only. By default the store listens on all
    interfaces, and gloo on the address of the host's name, which other nodes may not reach.

    An error in the block must reach the other ranks, which may wait for this one in a sum, and it must not wait for
    them: NCCL's end of a group is collective. So the group ends together only after a block without error. Otherwise
    this rank leaves a mark in the store and aborts; the others see a closed connection (gloo), or the mark.

    Args:
        place: This rank's place in the group.
        backend: ``gloo`` or ``nccl``.
        lost: Called in a thread when another rank has failed; 10 s later a process that is still in the block ends.
    """
    if place.world == 1:
        yield
        return
    _use_interface(place.host)
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    listener = socket.create_server((place.host, 0), family=family) if place.rank == 0 else None
    address = place.share((place.host, listener.getsockname()[1]) if listener else None)
    assert address is not None
    store = dist.TCPStore(  # type: ignore[attr-defined]
        *address,
        world_size=place.world,
        is_master=place.rank == 0,
        timeout=_TIMEOUT,
        master_listen_fd=listener.detach() if listener else None,
    )
    global _host  # noqa: PLW0603 - like torch's own default group
    dist.init_process_group(backend, store=store, rank=place.rank, world_size=place.world, timeout=_TIMEOUT)
    _host = dist.new_group(backend="gloo", timeout=_HOST_TIMEOUT)
    with _watching(address, lost):
        try:
            yield
        except BaseException:
            _host = None
            with suppress(RuntimeError):  # the store's rank may have ended
                store.set(_FAILED, str(place.rank))
            dist.distributed_c10d._abort_process_group()
            raise
        _host = None
        dist.destroy_process_group()


@contextmanager
def _watching(address: Address, lost: Callable[[], None]) -> Iterator[None]:
    """Watch for the failure of another rank while the block runs, also while this rank hangs in a sum."""
    # A client of its own: a call that waits in the other client would block it.
    client = dist.TCPStore(*address, is_master=False, wait_for_workers=False, timeout=_TIMEOUT)  # type: ignore[attr-defined]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_POLL_SECONDS):
            try:
                failed = client.check([_FAILED])
            except RuntimeError:  # the store's rank has ended
                failed = True
            if failed:
                break
        else:
            return
        lost()
        if not done.wait(_GRACE_SECONDS):
            log.error("Another rank has failed, and this one waits for it. It ends now; the other one has the error.")
            os._exit(1)

    thread = threading.Thread(target=watch, daemon=True, name="ranks")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _use_interface(host: str) -> None:
    """Make gloo and NCCL use the network interface that has a node's address, unless their variables are set."""
    wanted = ipaddress.ip_address(host)
    for name, addresses in psutil.net_if_addrs().items():
        own = (address.address.partition("%")[0] for address in addresses if address.family in _INTERNET)
        if wanted in map(ipaddress.ip_address, own):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={name}")  # with "=": exactly this name
            return


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


def from_rank_zero(number: int) -> int:
    """Return rank 0's number on every rank; rank 0 may take minutes to know it."""
    tensor = torch.tensor([number], dtype=torch.int64)
    if world_size() > 1:
        dist.broadcast(tensor, src=0, group=_host)
    return int(tensor.item())


def gathered(fact: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return every rank's facts, in the order of ranks, on every rank."""
    facts: list[Any] = [fact] * world_size()
    if world_size() > 1:
        dist.all_gather_object(facts, fact, group=_host)
    return facts


def differing_ranks(tensors: Sequence[Tensor]) -> list[int]:
    """Return the ranks whose tensors are not those of rank 0 to the last bit; the same list on all ranks."""
    if world_size() == 1:
        return []
    sums = torch.stack([_bits(tensor) for tensor in tensors])
    # Both halves of a 62-bit sum fit into float64 exactly, so the comparison works on any device.
    row = torch.zeros(world_size(), 2 * len(sums), dtype=torch.float64, device=sums.device)
    row[rank()] = torch.cat([sums >> 31, sums & 0x7FFFFFFF]).double()
    rows = sum_over_ranks(row)
    return (rows != rows[0]).any(dim=1).nonzero().flatten().tolist()


def _bits(tensor: Tensor) -> Tensor:
    """Return a scalar int64 that depends on each bit of a tensor of floats and on its place."""
    words = tensor.detach().double().reshape(-1).view(torch.int64)
    places = torch.arange(1, len(words) + 1, device=words.device)
    return (words * (2 * places + 1)).sum() & 0x3FFFFFFFFFFFFFFF


def barrier() -> None:
    """Wait until every rank has called this; one may take minutes."""
    if world_size() > 1:
        dist.barrier(group=_host)
