"""Gradients summed in memory that ranks on one machine share, where DDP would send them through its network stack.

Only gradients go this way. That all ranks have written theirs, and that a rank is lost, is still said by the process
group: a sum of one number stands for each bucket.

Shape letters in this file:
    W ranks     P elements of all gradients     p of a bucket
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
    """Have DDP sum float32 gradients on CPUs in shared memory, if all ranks can see each other's.

    The sum goes from rank 0 up, so all ranks get the same bits. Elsewhere, as on several machines or in containers
    that hide each other's processes, DDP goes on as it was.

    Args:
        network: Before its first backward pass.

    Returns:
        Whether it does, the same on all ranks.
    """
    gradients = [p for p in network.parameters() if p.requires_grad]
    if any(p.is_cuda or p.dtype != torch.float32 for p in gradients):
        return False
    windows = _open_windows(sum(p.numel() for p in gradients))
    if windows is not None:
        network.register_comm_hook(_Sums(windows), _sum_bucket)
    return windows is not None


class _Sums:
    """What the hook keeps: each rank's memory ``(W, P)``, and how much of it this backward pass has filled."""

    def __init__(self, windows: list[Tensor]) -> None:
        self.windows = windows
        self.filled = 0


def _sum_bucket(sums: _Sums, bucket: dist.GradBucket) -> Future[Tensor]:  # type: ignore[name-defined]
    """Return a promise of the bucket, ``(p,)``, averaged over ranks in place."""
    own: Tensor = bucket.buffer()
    world = len(sums.windows)
    if bucket.index() == 0:
        dist.all_reduce(torch.zeros(1))  # a slower rank may still read what the pass before has left
        sums.filled = 0
    start, sums.filled = sums.filled, sums.filled + own.numel()
    parts = [window[start : sums.filled] for window in sums.windows]
    torch.div(own, world, out=parts[dist.get_rank()])

    def add(written: Future[list[Tensor]]) -> Tensor:
        written.value()  # raises where a rank is lost
        torch.add(parts[0], parts[1], out=own)
        for part in parts[2:]:
            own.add_(part)
        return own

    written: Future[list[Tensor]] = dist.all_reduce(torch.zeros(1), async_op=True).get_future()
    return written.then(add)


def _open_windows(elements: int) -> list[Tensor] | None:
    """Return memory of each rank, ``(P,)`` float32, which all ranks see; None on all ranks if some cannot."""
    name = secrets.randbits(62)  # so that no other file is taken for a rank's
    handle = _create(name, elements * _FLOAT)
    mine = torch.tensor([os.getpid(), handle, name])
    theirs = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(theirs, mine)
    windows = [_map(rank.tolist(), elements * _FLOAT) for rank in theirs]
    seen = torch.tensor([float(all(window is not None for window in windows))])
    dist.all_reduce(seen)  # also the sign that everybody has opened everybody's
    if handle >= 0:
        os.close(handle)
    return [window for window in windows if window is not None] if seen.item() == len(windows) else None


def _create(name: int, size: int) -> int:
    """Return a descriptor of new memory that ends with the last process that maps it; -1 where there is no such."""
    if not hasattr(os, "memfd_create"):  # Linux only
        return -1
    handle = os.memfd_create(_title(name))
    os.ftruncate(handle, size)
    return handle


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
