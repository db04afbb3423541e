"""Who must leave learns it here: workers that get SIGTERM, that a draining node holds, or that are to be more or fewer.

A worker that is to leave finishes its step; then all ranks leave together, after a checkpoint. Driver and workers are
different processes on different nodes: the driver's request goes through the cluster's own key-value store.
"""

import logging
import signal
import threading
from typing import Any, Final

log = logging.getLogger(__name__)

_POLL_SECONDS: Final = 1.0
_LEAVE_SECONDS: Final = 30.0
_NAMESPACE: Final = "ada2i"

_asked = threading.Event()
_left = threading.Event()


def asked() -> bool:
    """Tell whether this process was asked to leave."""
    return _asked.is_set()


def ask() -> None:
    """Ask this process to leave."""
    _asked.set()


def left() -> None:
    """Say that this worker's training has ended, however it did."""
    _left.set()


def wait_until_left() -> None:
    """Wait until this worker's training has ended, but not for ever: its neighbours may hang."""
    _left.wait(_LEAVE_SECONDS)


def listen_as_worker() -> None:
    """Listen from now on; to be called in the main thread of a worker, which is the only one that may take signals.

    Ray's own handler of SIGTERM would end the process at once.
    """
    signal.signal(signal.SIGTERM, lambda *_: ask())
    threading.Thread(target=_watch, daemon=True, name="preemption").start()


def listen_as_driver() -> None:
    """Listen from now on, and hand a SIGTERM on to the workers; to be called after ``ray.init``."""

    def leave(*_: Any) -> None:
        _asked.set()
        # Not here: the main thread that was interrupted may be within a call of Ray's.
        threading.Thread(target=_ask_workers, daemon=True, name="preemption").start()

    signal.signal(signal.SIGTERM, leave)


def _ask_workers() -> None:
    from ray.experimental import internal_kv

    internal_kv._internal_kv_put(_key(), b"", namespace=_NAMESPACE)


def _watch() -> None:
    import ray
    from ray._private.state import state
    from ray.exceptions import RayError
    from ray.experimental import internal_kv

    node = ray.get_runtime_context().get_node_id()
    pause, told = threading.Event(), False
    while not _asked.is_set():
        try:
            if internal_kv._internal_kv_exists(_key(), namespace=_NAMESPACE) or node in state.get_draining_nodes():
                _asked.set()
        except RayError as problem:  # the head may be back soon
            if not told:
                log.warning("Ray does not say whether to leave, and is asked again: %s", problem)
            told = True
        pause.wait(_POLL_SECONDS)


def _key() -> bytes:
    import ray

    # Of this attempt alone: each is a Ray job of its own.
    return f"leave-{ray.get_runtime_context().get_job_id()}".encode()
