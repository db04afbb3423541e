"""The memory that a piece of code needs, measured in a process of its own on Linux."""

import os
import subprocess
import sys

# One allocator with one arena returns what is freed, the same way in each run; Arrow's own and several arenas keep a
# different amount each time.
ALLOCATOR = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "1"}
MEASURED = """
import sys, threading, time

def anonymous():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))

def watch():
    while True:
        peak[0] = max(peak[0], anonymous())
        time.sleep(0.002)

{setup}
before = anonymous()
peak = [before]
threading.Thread(target=watch, daemon=True).start()
{statement}
print((peak[0] - before) >> 10)
"""


def peak(setup: str, statement: str, *arguments: str) -> int:
    """Return by how many MiB a statement raises the process's own memory at most, mapped files apart.

    ``setup`` runs before; both read the arguments in ``sys.argv``.
    """
    command = [sys.executable, "-c", MEASURED.format(setup=setup, statement=statement), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | ALLOCATOR)
    return int(done.stdout.split()[-1])
