"""Preemption of a job: requests to leave, and how the processes of a job receive them.

A driver is requested to leave by SIGTERM, a worker by SIGTERM, by the drain of its node, or by its driver. The process
then finishes its step or task, writes its results, and ends. Driver and workers are different processes on
different nodes: the driver's request goes through the cluster's key-value store.
"""

import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

from ada2i.errors import PreemptedError
from ada2i.jobs import ray_compat

log = logging.getLogger(__name__)

_POLL_SECONDS: Final = 1.0
_LEAVE_SECONDS: Final = 30.0
_NAMESPACE: Final = "ada2i"

_requested = threading.Event()
_left = threading.Event()


def requested() -> bool:
    """Return whether this process was requested to leave."""
    return _requested.is_set()


def request() -> None:
    """Request this process to leave."""
    _requested.set()


def left() -> None:
    """Record that this worker's training has ended, for any reason."""
    _left.set()


def wait_until_left() -> None:
    """Wait until this worker's training has ended, at most 30 s, because other ranks may hang."""
    _left.wait(_LEAVE_SECONDS)


def error(what: str) -> PreemptedError:
    """Return the error of a job that left after the part of its work that ``what`` names."""
    return PreemptedError(f"The job was requested to leave, and left after {what}. Run again to resume.")


def listen_as_driver() -> None:
    """Pass SIGTERM on to the workers from now on; call this after ``ray.init``."""

    def leave(*_: Any) -> None:
        _requested.set()
        # Not in this thread, because the signal may have interrupted a call of Ray.
        threading.Thread(target=_request_workers, daemon=True, name="preemption").start()

    signal.signal(signal.SIGTERM, leave)


def listen_as_worker() -> None:
    """Watch for requests from now on, including SIGTERM; call this in the main thread of a worker.

    Ray's own handler of SIGTERM would end the process at once.
    """
    signal.signal(signal.SIGTERM, lambda *_: request())
    watch()


@contextmanager
def listening_here() -> Iterator[None]:
    """Let SIGTERM request this process to leave while the block runs, if it would end the process at once otherwise."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, lambda *_: request())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _requested.clear()


def watch() -> None:
    """Watch for requests of the driver and for a drain of this node, once per process; outside Ray do nothing."""
    ray = sys.modules.get("ray")  # a process that does not use Ray does not import it
    if ray is not None and ray.is_initialized():
        _start_watching()


@cache
def _start_watching() -> None:
    threading.Thread(target=_watch, daemon=True, name="preemption").start()


def requested_by_driver() -> bool:
    """Return whether the whole job must leave, and not only this process."""
    return ray_compat.has_flag(_flag(), namespace=_NAMESPACE)


def _request_workers() -> None:
    ray_compat.put_flag(_flag(), namespace=_NAMESPACE)


def _watch() -> None:
    import ray
    from ray.exceptions import RayError

    node = ray.get_runtime_context().get_node_id()
    pause, warned = threading.Event(), False
    while not _requested.is_set():
        try:
            if requested_by_driver() or ray_compat.is_draining(node):
                _requested.set()
        except RayError as problem:  # the head may soon answer again
            if not warned:
                log.warning("Ray does not answer whether this process must leave; retrying: %s", problem)
            warned = True
        pause.wait(_POLL_SECONDS)


def _flag() -> str:
    import ray

    # A flag of this attempt only: each attempt is a Ray job of its own.
    return f"leave-{ray.get_runtime_context().get_job_id()}"
