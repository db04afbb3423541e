"""How commands run jobs on Ray."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ada2i.jobs import logs

if TYPE_CHECKING:
    from ada2i.jobs.terminal import Terminal


def run_job(module: str, uri: str, progress: "Terminal") -> None:
    """Run a job to its end, on the cluster that the environment names or one of its own; see ``jobs.client.run``."""
    from ada2i.jobs import client
    from ada2i.jobs.cluster import cluster

    with cluster() as ray, progress:
        client.run(client.Job(module, uri), address=ray.address, on_event=progress)


@contextmanager
def interruptible(then: str = "The same command goes on from here.") -> Iterator[None]:
    """Say at Ctrl-C what became of what was started, and what to do next."""
    try:
        yield
    except KeyboardInterrupt:
        logs.notes().print(f"Interrupted; what was started has been stopped. {then}".rstrip())
        raise
