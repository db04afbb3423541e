"""Gradients of two ranks on one machine, summed in memory that they share rather than through the network stack.

Only gradients go this way. That both ranks have written theirs, and that one is lost, is still said by the process
group, which sums one number for each bucket.

Two numbers have one sum, whoever adds them up, so this changes no bit: a run may go on where its ranks no longer see
each other. With more ranks the order of the sum would depend on where they are, and DDP does as it always does.

Shape letters in this file:
    P elements of all gradients     p of a bucket
"""

import mmap
import os
import secrets
from contextlib import suppress
from typing import Final

import torch
import torch.distributed as dist
from torch import Tensor
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

_FLOAT: Final = 4  # bytes


def share_gradients(network: DistributedDataParallel) -> bool:
    """Have DDP sum float32 gradients of two ranks on CPUs in shared memory, if each can see the other's.

    Elsewhere, as on two machines or in containers that hide their processes, DDP goes on as it was. No bit of the
    gradients depends on it, only the time of a step, and memory: as much again as a rank's gradients.

    Args:
        network: Before its first backward pass.

    Returns:
        Whether it does, the same on both ranks.
    """
    gradients = [p for p in network.parameters() if p.requires_grad]
    if dist.get_world_size() != 2 or any(p.device.type != "cpu" or p.dtype != torch.float32 for p in gradients):
        return False
    windows = _open_windows(sum(p.numel() for p in gradients))
    if windows is not None:
        network.register_comm_hook(_Sums(windows), _sum_bucket)
    return windows is not None


class _Sums:
    """What the hook keeps: both ranks' memory, each ``(P,)``, and how much of it this backward pass has filled."""

    def __init__(self, windows: list[Tensor]) -> None:
        self.windows = windows
        self.filled = 0


def _sum_bucket(sums: _Sums, bucket: dist.GradBucket) -> Future[Tensor]:  # type: ignore[name-defined]
    """Return a promise of the bucket, ``(p,)``, averaged over ranks in place."""
    own: Tensor = bucket.buffer()
    if bucket.index() == 0:
        dist.all_reduce(torch.zeros(1))  # the other may still read what the pass before has left
        sums.filled = 0
    start, sums.filled = sums.filled, sums.filled + own.numel()
    one, other = (window[start : sums.filled] for window in sums.windows)
    torch.div(own, 2, out=one if dist.get_rank() == 0 else other)

    def add(written: Future[list[Tensor]]) -> Tensor:
        written.value()  # raises where the other is lost
        return torch.add(one, other, out=own)

    written: Future[list[Tensor]] = dist.all_reduce(torch.zeros(1), async_op=True).get_future()
    return written.then(add)


def _open_windows(elements: int) -> list[Tensor] | None:
    """Return the memory of each rank, ``(P,)`` float32, which both see; None on both if one cannot."""
    name = secrets.randbits(62)  # so that no other file is taken for a rank's
    handle = _create(name, elements * _FLOAT)
    try:
        mine = torch.tensor([os.getpid(), handle, name])
        theirs = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
        dist.all_gather(theirs, mine)
        windows = [_map(rank.tolist(), elements * _FLOAT) for rank in theirs]
        seen = torch.tensor([float(all(window is not None for window in windows))])
        dist.all_reduce(seen)  # also the sign that both have opened both
    finally:
        if handle >= 0:
            os.close(handle)
    return [window for window in windows if window is not None] if seen.item() == len(windows) else None


def _create(name: int, size: int) -> int:
    """Return a descriptor of new memory that ends with the last process that maps it; -1 where there is none."""
    if not hasattr(os, "memfd_create"):  # Linux only
        return -1
    with suppress(OSError):
        handle = os.memfd_create(_title(name))
        try:
            os.posix_fallocate(handle, 0, size)  # now: memory that is missing later would end the process
        except OSError:
            os.close(handle)
            raise
        return handle
    return -1


def _map(rank: list[int], size: int) -> Tensor | None:
    """Return the memory of a rank, given its process, descriptor and name; None where this process cannot see it."""
    process, handle, name = rank
    path = f"/proc/{process}/fd/{handle}"
    with suppress(OSError):
        # Elsewhere the number may be another process's.
        if os.readlink(path) == f"/memfd:{_title(name)} (deleted)":
            opened = os.open(path, os.O_RDWR)
            try:
                return torch.frombuffer(mmap.mmap(opened, size), dtype=torch.float32)
            finally:
                os.close(opened)
    return None


def _title(name: int) -> str:
    return f"ada2i-gradients-{name:x}"
