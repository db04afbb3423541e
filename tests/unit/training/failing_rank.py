"""One rank of a process group whose last rank fails, run as a script: prints how it learns of that, and when.

Usage: failing_rank.py RANK FILE HOW [WORLD BACKEND], with HOW together, raises, hangs or killed. ``benchmarks.gpu``
runs it with NCCL.
"""

import os
import signal
import sys
import time
from pathlib import Path

import torch

from ada2i.training import distributed
from ada2i.training.distributed import Place
from tests.unit.training.sharing import share_through

RANK, FILE, HOW = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
WORLD, BACKEND = (int(sys.argv[4]), sys.argv[5]) if len(sys.argv) > 4 else (2, "gloo")
DEVICE = torch.device("cuda" if BACKEND == "nccl" else "cpu")
LAST = RANK == WORLD - 1
distributed._GRACE_SECONDS = 2.0


def fail() -> None:
    """Raise this rank's own error."""
    raise ValueError("a damaged shard")


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


place = Place(rank=RANK, world=WORLD, local_world=WORLD, local_rank=RANK, share=share_through(FILE, RANK))
begun = time.monotonic()
try:
    with distributed.process_group(place, backend=BACKEND, lost=lambda: say("noticed")):
        say(f"sum {float(distributed.sum_over_ranks(torch.ones(1, device=DEVICE))):g}")
        distributed.barrier()
        begun = time.monotonic()
        if LAST and HOW == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if LAST and HOW != "together":
            fail()
        if HOW == "hangs":  # like a kernel of NCCL, which no connection wakes
            time.sleep(60)
        float(distributed.sum_over_ranks(torch.ones(1, device=DEVICE)))
except (RuntimeError, ValueError) as problem:
    say(f"{type(problem).__name__}: {problem}")
say(f"{time.monotonic() - begun:.1f} s")
