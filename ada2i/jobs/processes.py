"""Child processes that leave nothing behind: each has its own session and an owner's mark that its children inherit.

Parentage alone does not find all children of a server: some move to sessions of their own, and a killed parent leaves
orphans. The mark does. Reads ``/proc``, so Linux only.
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

from ada2i.errors import UnreachableError

_MARK: Final = "ADA2I_OWNER"
_PROC: Final = Path("/proc")
_TAIL: Final = 15  # log lines that an error shows


@dataclass(frozen=True)
class Process:
    """A process that this package started, told from a later one with the same number by its start time.

    Attributes:
        pid: Its number, which is also its session's.
        started: Its start in clock ticks since boot.
        owner: The mark that it and its children carry.
    """

    pid: int
    started: int
    owner: str

    @property
    def alive(self) -> bool:
        """Whether it runs; one that ended and waits to be reaped does not."""
        found = _read_stat(self.pid)
        return found is not None and found.started == self.started


@dataclass(frozen=True)
class _Stat:
    pid: int
    parent: int
    session: int
    started: int


def spawn(
    command: Sequence[str], *, owner: str, env: Mapping[str, str], log: Path, folder: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own, so that no key press in this terminal reaches it.

    Args:
        command: Program and arguments.
        owner: Mark by which :func:`stop` finds its children; nothing else may carry it.
        env: Its whole environment.
        log: File that both its streams are appended to, readable by this user only.
        folder: Where it runs; by default where this process does.
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
    """Return what to remember of a child, so that another process can stop it later."""
    found = _read_stat(child.pid)
    return Process(child.pid, found.started if found else 0, owner)


def wait_until(
    ready: Callable[[], bool], *, child: subprocess.Popen[bytes], name: str, address: str, log: Path, timeout: float
) -> None:
    """Wait until a child that was just started does its work.

    Raises:
        UnreachableError: It ended, or time ran out; the message ends with the last lines of its log.
    """
    deadline = time.monotonic() + timeout
    while not ready():
        code = child.poll()
        if code is not None or time.monotonic() > deadline:
            found = f"it ended with code {code}" if code is not None else f"does not within {timeout:.0f} s"
            raise UnreachableError(
                f"{name} must answer at {address}, but {found}. Mend what its log says, then start again. "
                f"{log} ends with:\n{tail(log)}",
                address=address,
                log=str(log),
            )
        time.sleep(0.2)


def tail(log: Path) -> str:
    """Return the last lines of a log, indented; nothing where there is none."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join(f"  {line}" for line in lines[-_TAIL:])


def stop(process: Process, *, grace: float, children_first: bool = False) -> None:
    """Ask a process and all its children to end, then kill what is left; nothing happens where none is left.

    Args:
        process: The process; may have ended already, leaving children.
        grace: Seconds that it gets to end by itself, and as many for its children.
        children_first: Whether its children are asked before it; for one that abandons them when it ends.
    """
    family = _family(process)
    root = {member for member in family if member.pid == process.pid}
    _ask_to_end(family - root if children_first else root, grace)
    # What was born since the first look is found now; what lost its parent since then was seen by the first look.
    left = family | _family(process)
    _ask_to_end(left, grace)
    _signal(left, signal.SIGKILL)
    _wait(left, 10.0)


def _ask_to_end(members: Collection[Process], grace: float) -> None:
    _signal(members, signal.SIGTERM)
    _wait(members, grace)


def _family(root: Process) -> set[Process]:
    stats = _read_stats()
    mark = f"{_MARK}={root.owner}".encode()
    known = {stat.pid for stat in stats if mark in _read_environment(stat.pid)}
    if not (found := _read_stat(root.pid)) or found.started == root.started:
        known.add(root.pid)  # its session's number cannot belong to anybody else
    while new := {s.pid for s in stats if s.pid not in known and (s.parent in known or s.session in known)}:
        known |= new
    known.discard(os.getpid())
    return {Process(stat.pid, stat.started, root.owner) for stat in stats if stat.pid in known}


def _wait(members: Collection[Process], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while any(member.alive for member in members) and time.monotonic() < deadline:
        time.sleep(0.05)


def _signal(members: Collection[Process], number: signal.Signals) -> None:
    for member in members:
        if member.alive:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(member.pid, number)


def _read_stats() -> list[_Stat]:
    found = [_read_stat(int(entry.name)) for entry in _PROC.iterdir() if entry.name.isdigit()]
    return [stat for stat in found if stat]


def _read_stat(pid: int) -> _Stat | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name in parentheses, and may hold spaces and parentheses itself.
    state, parent, _, session, *rest = text.rpartition(")")[2].split()
    # Its first thread may have ended before the others, which still hold its files and ports; then it is Z as well.
    ended = state in "ZX" and int(rest[13]) <= 1
    return None if ended else _Stat(pid, int(parent), int(session), int(rest[15]))


def _read_environment(pid: int) -> list[bytes]:
    try:
        return (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except PermissionError:
        return []
    except (FileNotFoundError, ProcessLookupError):
        return _read_threads_environment(pid)


def _read_threads_environment(pid: int) -> list[bytes]:
    """Return the environment that a process's other threads still have when its first one has ended."""
    for path in (_PROC / str(pid) / "task").glob("*/environ"):
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if found := path.read_bytes():
                return found.split(b"\0")
    return []
