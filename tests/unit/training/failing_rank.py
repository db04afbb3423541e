"""One rank of a process group in which rank 1 fails, run as a script: prints how it learns of that, and when."""

import json
import os
import sys
import time
from pathlib import Path

import torch

from ada2i.training import distributed
from ada2i.training.distributed import Address, Place

RANK, FILE, HOW = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
distributed._GRACE_SECONDS = 2.0


def share(address: Address | None) -> Address | None:
    """Give rank 0's address to rank 1 through a file."""
    if RANK == 0:
        partial = FILE.with_suffix(".partial")
        partial.write_text(json.dumps(address))
        partial.rename(FILE)
        return address
    while not FILE.exists():
        time.sleep(0.05)
    host, port = json.loads(FILE.read_text())
    return host, port


def fail() -> None:
    """Raise this rank's own error."""
    raise ValueError("a damaged shard")


def lost() -> None:
    """Report that the group noticed."""
    sys.stdout.write("noticed\n")
    sys.stdout.flush()


place = Place(rank=RANK, world=2, local_world=2, local_rank=RANK, share=share)
begun = time.monotonic()
try:
    with distributed.process_group(place, backend="gloo", lost=lost):
        distributed.sum_over_ranks(torch.ones(1))
        if HOW != "killed" or RANK == 0:
            distributed.barrier()
        if RANK == 1 and HOW == "killed":
            os._exit(9)
        if RANK == 1:
            fail()
        if HOW == "hangs":  # like a kernel of NCCL, which no connection wakes
            time.sleep(60)
        distributed.sum_over_ranks(torch.ones(1))
except (RuntimeError, ValueError) as problem:
    sys.stdout.write(f"{type(problem).__name__}: {problem}\n")
sys.stdout.write(f"{time.monotonic() - begun:.1f} s\n")
