"""The Ray cluster for this run's jobs: the one in ``RAY_API_SERVER_ADDRESS``, else a private head for one run.

A head that is started here listens on loopback only, and requires a token that only this user can read.
"""

import json
import logging
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ada2i.errors import ResourceError, UnreachableError
from ada2i.jobs import logs, processes
from ada2i.jobs.http import request, token_headers

HEAD_CPUS: Final = max(os.cpu_count() or 1, 2)
"""CPUs of a head started here."""

CODE: Final = "ADA2I_CODE"
"""Environment variable with the folder in which a job finds encoders and readers of the caller's own."""

_LOOPBACK: Final = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_FIXED: Final[Mapping[str, str]] = {
    _LOOPBACK: "0",  # all listeners on loopback
    "PYTHONSAFEPATH": "1",  # no file of the working directory in place of a module such as calendar
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    "RAY_metrics_report_interval_ms": "2000",
    "RAY_JOB_STOP_WAIT_TIME_S": "60",  # a job that is stopped writes a checkpoint first
}
_FOREIGN: Final = ("RAY_ADDRESS", "RAY_AUTH_TOKEN")  # these would connect the head's processes to another cluster
_OBJECT_STORE_BYTES: Final = 256 << 20  # jobs exchange URIs, not tensors
_LONGEST_FOLDER: Final = 40  # Ray's socket paths add 66 characters, and a socket's path holds 107
_PORTS: Final = range(10240, 22760)  # below the ephemeral ports; SeaweedFS also uses each port plus 10000
_START_SECONDS: Final = 120.0
_GRACE_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster that takes jobs.

    Attributes:
        address: URL of its dashboard, which is also the Jobs API's.
        gcs: Address for drivers outside of it, of a private head; else empty.
    """

    address: str
    gcs: str = ""


@contextmanager
def connected() -> Iterator[None]:
    """Connect this process to the Ray cluster of ``RAY_ADDRESS``, else to a private head that ends with the block.

    Ray must not have been imported before: it reads the head's token and address when it is imported.

    Raises:
        UnreachableError: The private head does not start, also when it is tried a second time.
    """
    with _stopped_by_sigterm(), ExitStack() as until_exit:
        address = os.environ.get("RAY_ADDRESS")
        if not address:
            address = _started_head(until_exit).gcs
            until_exit.enter_context(_environment({_LOOPBACK: _FIXED[_LOOPBACK]}))
        import ray

        # Ray puts a driver's working directory first on its workers' path, so it must be an empty one.
        with tempfile.TemporaryDirectory(prefix="ada2i-") as empty, chdir(empty), _handler_kept():
            ray.init(address, log_to_driver=False, logging_level=logging.WARNING)
        until_exit.callback(ray.shutdown)
        yield


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Yield the cluster for this run's jobs; a private one ends with the block and leaves no files.

    A private head has as many CPUs as this machine, at least two. Within the block this process's environment names its
    token; see ``jobs.http.auth_headers``.

    Raises:
        UnreachableError: The private head does not start, also when it is tried a second time.
    """
    if address := os.environ.get("RAY_API_SERVER_ADDRESS"):
        yield Cluster(address)
        return
    with _stopped_by_sigterm(), ExitStack() as until_exit:
        yield _started_head(until_exit)


def _started_head(until_exit: ExitStack) -> Cluster:
    """Return a private head that ends with a stack of contexts; it is tried a second time."""
    logs.notes().print("Starting a private Ray head...")
    try:
        return until_exit.enter_context(_private_head())
    except UnreachableError as problem:
        logs.notes().print(f"{problem.message}\nIt is started once more.")
        return until_exit.enter_context(_private_head())


@contextmanager
def _private_head() -> Iterator[Cluster]:
    """Yield a head that ends with the block; raises as ``wait_ready`` does."""
    folder = short_folder()
    token, log, port = folder / "token", folder / "head.log", free_port()
    write_secret(token, secrets.token_hex(32))
    try:
        with _environment(_private(token)):
            head = start_head(folder=folder, token=token, dashboard_port=port, env=os.environ, log=log)
            with _guarded(head, folder):
                try:
                    address = f"http://127.0.0.1:{port}"
                    wait_ready(address, token=token, head=head, log=log)
                    yield Cluster(address, _gcs_address(folder, address, head, log))
                finally:
                    stop_head(head, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _gcs_address(folder: Path, address: str, head: subprocess.Popen[bytes], log: Path) -> str:
    """Return the address that drivers connect to; `ray start` writes it some time after the head takes jobs."""
    file = folder / "ray" / "ray_current_cluster"

    def written() -> bool:
        return file.exists() and bool(file.read_text())

    name = f"The Ray head, which writes {file},"
    processes.wait_until(written, child=head, name=name, address=address, log=log, timeout=_START_SECONDS)
    return file.read_text().strip()


def _private(token: Path) -> dict[str, str | None]:
    """Return the environment of clients of a private head: its token, no other cluster and no proxy."""
    return {**token_environment(token), **dict.fromkeys(_FOREIGN), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


@contextmanager
def _guarded(head: subprocess.Popen[bytes], folder: Path) -> Iterator[None]:
    """Start a small process that ends the head if this process is killed: it waits for the end of a pipe from here."""
    family = processes.identify(head, str(folder))
    command = [sys.executable, "-P", "-m", "ada2i.jobs.cluster", str(family.pid), str(family.started), str(folder)]
    guard = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
    finally:
        guard.communicate()


def _guard(pid: int, started: int, folder: Path) -> None:
    sys.stdin.read()  # returns when the process at the other end closes the pipe or ends
    if folder.exists():
        processes.stop(processes.Process(pid, started, str(folder)), grace=_GRACE_SECONDS)
        shutil.rmtree(folder, ignore_errors=True)


def start_head(
    *, folder: Path, token: Path, dashboard_port: int, env: Mapping[str, str], log: Path
) -> subprocess.Popen[bytes]:
    """Start a Ray head on loopback; other heads may run at the same time.

    Args:
        folder: Ray's own files; a short path, see :func:`short_folder`. Also the mark of the head's processes.
        token: File with the token that it requires.
        dashboard_port: Port of the dashboard and the Jobs API.
        env: Its environment, inherited by all jobs; it must contain what they need to reach storage.
        log: File for its output.

    Raises:
        ResourceError: The folder's path is too long for sockets.
    """
    if len(str(folder)) > _LONGEST_FOLDER:
        raise ResourceError(
            f"Ray's folder must have a path of at most {_LONGEST_FOLDER} characters, as sockets lie in it, but "
            f"{folder} has {len(str(folder))}. Choose a shorter one.",
            folder=str(folder),
        )
    options = {
        "port": 0,
        "min-worker-port": 0,  # any free port; the default is a range that another head may use as well
        "max-worker-port": 0,
        "ray-client-server-port": free_port(),
        "dashboard-agent-listen-port": free_port(),
        "include-dashboard": "true",
        "dashboard-host": "127.0.0.1",
        "dashboard-port": dashboard_port,
        "num-cpus": HEAD_CPUS,
        "object-store-memory": _OBJECT_STORE_BYTES,
        "temp-dir": folder / "ray",
        "log-color": "false",
    }
    flags = ["--head", "--block", "--disable-usage-stats", *(f"--{name}={value}" for name, value in options.items())]
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *flags]
    own = {name: value for name, value in env.items() if name not in _FOREIGN} | {"TMPDIR": str(folder)}
    whole = {CODE: os.getcwd(), "ADA2I_PYTHON": sys.executable, **own, **_FIXED, **token_environment(token)}
    # Ray puts the working directory of each driver first on its workers' path, so it must be an empty one.
    return processes.spawn(command, owner=str(folder), env=whole, log=log, folder=folder)


def wait_ready(
    address: str, *, token: Path, head: subprocess.Popen[bytes], log: Path, timeout: float = _START_SECONDS
) -> None:
    """Wait until a head that was just started accepts jobs.

    Raises:
        UnreachableError: It ended, or did not answer in time; the message ends with the last lines of its log.
    """
    processes.wait_until(
        lambda: takes_jobs(address, token), child=head, name="The Ray head", address=address, log=log, timeout=timeout
    )


def takes_jobs(address: str, token: Path) -> bool:
    """Return whether a head answers and has a node that runs jobs."""
    status, body = request(f"{address}/nodes?view=summary", token_headers(token.read_text()))
    if status != 200:
        return False
    nodes: list[dict[str, Any]] = json.loads(body).get("data", {}).get("summary", [])
    return any(node.get("raylet", {}).get("state") == "ALIVE" for node in nodes)


def stop_head(head: subprocess.Popen[bytes], folder: Path) -> None:
    """Stop a head started here with everything that it started: servers, workers and the jobs' drivers.

    Args:
        head: The result of :func:`start_head`.
        folder: Its folder.
    """
    processes.stop(processes.identify(head, str(folder)), grace=_GRACE_SECONDS)
    head.wait()


def short_folder() -> Path:
    """Create a private folder with a path short enough for Ray's sockets."""
    usual = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="ada2i-", dir=usual if len(usual) <= _LONGEST_FOLDER - 15 else "/tmp"))


def free_port(preferred: int | None = None, *, paired: bool = False) -> int:
    """Return a port that nothing listens on: the preferred one if it is free.

    Args:
        preferred: Port to take if it is free.
        paired: Whether the port plus 10000 must be free too.
    """
    candidates = random.SystemRandom().sample(_PORTS, k=200)
    for port in [preferred, *candidates] if preferred else candidates:
        if _is_free(port) and (not paired or _is_free(port + 10000)):
            return port
    raise ResourceError(
        f"A port between {_PORTS.start} and {_PORTS.stop} must be free on 127.0.0.1, but none of 200 tried is. "
        "Stop some servers."
    )


def write_secret(path: Path, text: str) -> None:
    """Write a file that only this user can read; replace an existing one."""
    path.unlink(missing_ok=True)  # a file that exists would keep its mode
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def token_environment(token: Path) -> dict[str, str]:
    """Return the variables by which Ray's processes and clients find a token."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a closed connection does not hold a port
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


@contextmanager
def _environment(values: Mapping[str, str | None]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    _set_environment(values)
    try:
        yield
    finally:
        _set_environment(before)


def _set_environment(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Turn SIGTERM into an exit that runs ``finally`` blocks, unless it is handled already."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def leave(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def _handler_kept() -> Iterator[None]:
    """Restore the handler of SIGTERM after the block: Ray's start replaces it by one that aborts the process."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


if __name__ == "__main__":
    _guard(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
