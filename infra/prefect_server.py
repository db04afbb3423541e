"""Prefect's server with a thread of its own for garbage collection: ``python infra/prefect_server.py start``.

On SQLite, the cursor of a failed statement locks its connection when it is freed. Python's garbage collector frees it
in the thread that happens to allocate, which in a server is mostly the event loop's. If another statement of that
connection is waiting for SQLite's write lock, the event loop waits for the connection, while the lock's holder needs
the event loop to commit: the server answers nothing until the statement's wait ends, after 60 s. In a thread of its
own, only the collector waits.
"""

import gc
import itertools
import runpy
import sys
import threading
import time

_SECONDS = 1.0
_FULL = 60  # each 60th collection includes the oldest generation, which takes some tenths of a second


def main() -> None:
    """Run ``prefect server`` with this program's arguments."""
    collect_in_a_thread()
    sys.argv[1:1] = ["server"]
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


def collect_in_a_thread() -> None:
    """Let a thread of its own collect this process's garbage from now on."""
    gc.disable()
    threading.Thread(target=_collect, name="garbage collector", daemon=True).start()


def _collect() -> None:
    for turn in itertools.count(1):
        time.sleep(_SECONDS)
        gc.collect(2 if turn % _FULL == 0 else 1)


if __name__ == "__main__":
    main()
