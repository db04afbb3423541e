"""Child processes: all of them end, and no other process is touched."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ada2i.errors import UnreachableError
from ada2i.jobs import processes
from ada2i.jobs.processes import Process

SLEEPER = "import time; time.sleep(60)"
# A child in a session of its own, then the parent's end: only the mark leads to it.
ABANDONS = (
    f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {SLEEPER!r}], start_new_session=True).pid)"
)


def spawn(code: str, folder: Path) -> tuple[Process, subprocess.Popen[bytes]]:
    child = processes.spawn([sys.executable, "-c", code], owner=str(folder), env=os.environ, log=folder / "log")
    return processes.identify(child, str(folder)), child


def is_running(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] not in "ZX"


def test_stop_ends_a_process(tmp_path: Path) -> None:
    process, child = spawn(SLEEPER, tmp_path)
    assert process.alive
    processes.stop(process, grace=5)
    assert child.wait() == -15
    assert not process.alive


def test_stop_finds_what_a_dead_parent_abandoned(tmp_path: Path) -> None:
    process, child = spawn(ABANDONS, tmp_path)
    assert child.wait() == 0
    orphan = int((tmp_path / "log").read_text())
    assert is_running(orphan)
    processes.stop(process, grace=5)
    assert not is_running(orphan)


def test_stop_kills_what_does_not_end(tmp_path: Path) -> None:
    process, child = spawn(
        f"import signal; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); {SLEEPER}", tmp_path
    )
    while "deaf" not in (tmp_path / "log").read_text():
        time.sleep(0.05)
    processes.stop(process, grace=0.2)
    assert child.wait() == -9


def test_a_process_lives_until_its_last_thread_ends(tmp_path: Path) -> None:
    # Killed servers look like this for a moment: the first thread is gone, and others still hold files and ports.
    ends_first_thread = "ctypes.CDLL(None).pthread_exit(None)"
    code = (
        f"import ctypes, threading, time; threading.Thread(target=time.sleep, args=(60,)).start(); {ends_first_thread}"
    )
    process, child = spawn(code, tmp_path)
    while is_running(process.pid):
        time.sleep(0.05)
    assert child.poll() is None
    assert process.alive
    processes.stop(process, grace=0.2)
    assert not process.alive
    assert child.poll() is not None  # nothing is left to wait for


def test_stop_finds_an_orphan_that_has_lost_its_first_thread(tmp_path: Path) -> None:
    orphan_code = (
        "import ctypes, os, threading, time; threading.Thread(target=time.sleep, args=(60,)).start(); "
        "print(os.getpid(), flush=True); ctypes.CDLL(None).pthread_exit(None)"
    )
    abandons = (
        f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {orphan_code!r}], start_new_session=True)"
    )
    process, child = spawn(abandons, tmp_path)
    assert child.wait() == 0
    while not (tmp_path / "log").read_text():
        time.sleep(0.05)
    orphan = int((tmp_path / "log").read_text())
    while is_running(orphan):
        time.sleep(0.05)
    assert processes._started(orphan)
    processes.stop(process, grace=0.2)
    assert not processes._started(orphan)


def test_children_can_get_sigterm_first(tmp_path: Path) -> None:
    # The parent reports how its child ended, which it can do only if it outlives it.
    # It blocks SIGTERM until it has written its line, since the test may send it earlier.
    hold, let_in = (f"signal.pthread_sigmask(signal.SIG_{how}, [signal.SIGTERM])" for how in ("BLOCK", "UNBLOCK"))
    sleeper = f"import signal; {let_in}; {SLEEPER}"
    child_code = f"subprocess.Popen([sys.executable, '-c', {sleeper!r}])"
    code = f"import signal, subprocess, sys; {hold}; print({child_code}.wait(), flush=True); {let_in}; {SLEEPER}"
    process, child = spawn(code, tmp_path)
    while len(processes._family(process)) < 2:
        time.sleep(0.05)
    processes.stop(process, grace=1, children_first=True)
    assert child.wait() == -15
    assert (tmp_path / "log").read_text() == "-15\n"


def test_stop_leaves_a_later_process_with_the_same_number(tmp_path: Path) -> None:
    process, child = spawn(SLEEPER, tmp_path)
    earlier = Process(process.pid, process.started - 1, "another owner")
    assert not earlier.alive
    processes.stop(earlier, grace=0)
    assert process.alive
    processes.stop(process, grace=5)
    child.wait()


def test_logs_are_private(tmp_path: Path) -> None:
    _, child = spawn("print('said')", tmp_path)
    child.wait()
    assert (tmp_path / "log").read_text() == "said\n"
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_waiting_shows_why_a_child_ended(tmp_path: Path) -> None:
    _, child = spawn("raise SystemExit('no such disk')", tmp_path)
    with pytest.raises(
        UnreachableError, match=r"S3 must answer at here, but it ended with code 1\.(?s:.*)no such disk"
    ):
        processes.wait_until(lambda: False, child=child, name="S3", address="here", log=tmp_path / "log", timeout=30)


def test_waiting_ends(tmp_path: Path) -> None:
    process, child = spawn(SLEEPER, tmp_path)
    with pytest.raises(UnreachableError, match=r"S3 must answer at here, but does not within 0 s; the machine"):
        processes.wait_until(lambda: False, child=child, name="S3", address="here", log=tmp_path / "log", timeout=0.3)
    processes.stop(process, grace=5)
    child.wait()
