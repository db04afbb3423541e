"""The state of torch in a process that belongs to the caller."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_training = threading.Lock()


@contextmanager
def restored_torch() -> Iterator[None]:
    """Restore torch's number of threads and the CPU's random state at the end of the block."""
    import torch

    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.random.set_rng_state(state)


@contextmanager
def training_alone() -> Iterator[None]:
    """Let only one thread of this process train at a time: all share one random generator."""
    with _training, restored_torch():
        yield
