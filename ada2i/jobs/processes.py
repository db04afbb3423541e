"""Child processes that are always stopped completely: each has its own session and a mark that its children inherit.

Parent ids alone do not find all children of a server: some move to their own sessions, and a killed parent leaves
orphans. The mark does. Facts that psutil does not provide are read from ``/proc``, so Linux only.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from ada2i.display import count
from ada2i.errors import UnreachableError
from ada2i.jobs import logs

_MARK: Final = "ADA2I_OWNER"
_PROC: Final = Path("/proc")
_SHOWN_SECONDS: Final = 15.0  # between two lines about what is waited for
_TAIL: Final = 15  # log lines in an error message


@dataclass(frozen=True)
class Process:
    """A process that this package started; its start time distinguishes it from a later one with the same id.

    Attributes:
        pid: Its process id, which is also its session's.
        started: Its start in clock ticks since boot.
        owner: The mark that it and its children carry.
    """

    pid: int
    started: int
    owner: str

    @property
    def alive(self) -> bool:
        """Whether it runs; a zombie does not."""
        return _started(self.pid) == self.started


def spawn(
    command: Sequence[str], *, owner: str, env: Mapping[str, str], log: Path, folder: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a command in its own session, so that key presses in this terminal do not reach it.

    Args:
        command: Program and arguments.
        owner: Mark by which :func:`stop` finds its children; it must be unique.
        env: Its whole environment.
        log: File that both its streams are appended to, readable by this user only.
        folder: Its working folder; by default this process's.
    """
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(
            command,
            env={**env, _MARK: owner},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    finally:
        os.close(handle)


def identify(child: subprocess.Popen[bytes], owner: str) -> Process:
    """Return the facts by which another process can stop a child later."""
    return Process(child.pid, _started(child.pid) or 0, owner)


def wait_until(
    ready: Callable[[], bool], *, child: subprocess.Popen[bytes], name: str, address: str, log: Path, timeout: float
) -> None:
    """Wait until a child that was just started is ready.

    Raises:
        UnreachableError: It ended, or was not ready in time; the message ends with the last lines of its log.
    """
    begun = shown = time.monotonic()
    while not ready():
        code, now = child.poll(), time.monotonic()
        if code is not None or now - begun > timeout:
            raise _not_ready(code, name=name, address=address, log=log, timeout=timeout)
        if now - shown > _SHOWN_SECONDS:
            shown = now
            logs.notes().print(f"{name} has not answered for {now - begun:.0f} s; {load()}.")
        time.sleep(0.2)


def _not_ready(code: int | None, *, name: str, address: str, log: Path, timeout: float) -> UnreachableError:
    found = f"it ended with code {code}. Correct what its log names, then start again."
    if code is None:
        found = f"does not within {timeout:.0f} s; {load()}. Start again when the machine is less busy."
    return UnreachableError(
        f"{name} must answer at {address}, but {found} {log} ends with:\n{tail(log)}", address=address, log=str(log)
    )


def load() -> str:
    """Return how busy this machine is, in words."""
    return f"the machine's load is {os.getloadavg()[0]:.1f} on {count(os.cpu_count() or 1, 'CPU')}"


def tail(log: Path) -> str:
    """Return the last lines of a log, indented, or nothing if it does not exist."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join(f"  {line}" for line in lines[-_TAIL:])


def stop(process: Process, *, grace: float, children_first: bool = False) -> None:
    """Send SIGTERM to a process and all its children, then kill those that do not end.

    Args:
        process: The process; it may have ended already and left children.
        grace: Seconds to wait for its end, and again for its children's.
        children_first: Whether its children get the signal first; for a process that abandons them when it ends.
    """
    family = _family(process)
    root = {member for member in family if member.pid == process.pid}
    _terminate(family - root if children_first else root, grace)
    # This finds children that started after the first search, which found those that lost their parent since.
    left = family | _family(process)
    _terminate(left, grace)
    _signal(left, signal.SIGKILL)
    _wait(left, 10.0)


def _terminate(members: Collection[Process], grace: float) -> None:
    _signal(members, signal.SIGTERM)
    _wait(members, grace)


def _family(root: Process) -> set[Process]:
    relations = {pid: relation for pid in psutil.pids() if (relation := _relation(pid)) is not None}
    known = {pid for pid in relations if _environment(pid).get(_MARK) == root.owner}
    if _started(root.pid) in (None, root.started):
        known.add(root.pid)  # its session id cannot belong to another process
    while new := {pid for pid, ancestors in relations.items() if pid not in known and known.intersection(ancestors)}:
        known |= new
    known.discard(os.getpid())
    return {Process(pid, started, root.owner) for pid in known if (started := _started(pid)) is not None}


def _wait(members: Collection[Process], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while any(member.alive for member in members) and time.monotonic() < deadline:
        time.sleep(0.05)


def _signal(members: Collection[Process], number: signal.Signals) -> None:
    for member in members:
        if member.alive:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(member.pid, number)


def _relation(pid: int) -> tuple[int, int] | None:
    """Return a process's parent and session, or None if it has ended."""
    try:
        return psutil.Process(pid).ppid(), os.getsid(pid)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return None


def _started(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot, or None if it has ended.

    psutil gives this time by the wall clock, which may be changed.
    """
    try:
        process = psutil.Process(pid)
        # Its other threads may outlive its first one, and still hold its files and ports; it is a zombie then as well.
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD) and process.num_threads() <= 1:
            return None
        fields = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return None
    return int(fields[19])


def _environment(pid: int) -> Mapping[str, str]:
    try:
        return dict(psutil.Process(pid).environ())
    except psutil.ZombieProcess:
        return _threads_environment(pid)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return {}


def _threads_environment(pid: int) -> dict[str, str]:
    """Return the environment that a process's other threads still have when its first one has ended."""
    for path in (_PROC / str(pid) / "task").glob("*/environ"):
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if found := path.read_bytes().decode(errors="replace"):
                return dict(entry.split("=", 1) for entry in found.split("\0") if "=" in entry)
    return {}
