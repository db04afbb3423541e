"""Start and stop the local stack, and remember what runs.

``state.json`` in the stack's folder is written right after each start, so that whatever ends a start half-way, a stop
finds all that was started. Secrets and data stay across stops.
"""

import fcntl
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Literal

from ada2i.errors import ResourceError
from ada2i.jobs import cluster, processes
from infra import services
from infra.services import Layout, Service

_VERSION: Final = 1

Event = Literal["running", "ready", "stopped"]
Progress = Callable[[str, str, Event, float], None]
"""Called with a service's title, its place, what happened, and the seconds that it took."""


@dataclass
class Stack:
    """A stack that was started, complete or in part.

    Attributes:
        layout: Where it lives.
        running: What runs, by service.
        deployed: Digest of what the flows were deployed from; empty before that.
    """

    layout: Layout
    running: dict[str, processes.Process] = field(default_factory=dict)
    deployed: str = ""
    _children: list[subprocess.Popen[bytes]] = field(default_factory=list, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def environment(self) -> dict[str, str]:
        """Return what a client needs in its environment, secrets included."""
        return self.layout.environment()

    def alive(self, name: str) -> bool:
        """Return whether a service's process runs."""
        return name in self.running and self.running[name].alive

    def adopt(self, name: str, child: subprocess.Popen[bytes]) -> None:
        """Remember a service's process, on disk too."""
        with self._lock:
            self._children.append(child)
            self.running[name] = processes.identify(child, self.layout.owner(name))
            self.save()

    def save(self) -> None:
        """Write the state; a reader sees the old or the new one."""
        layout = self.layout
        content = {
            "version": _VERSION,
            "ports": dict(layout.ports),
            "ray_folder": str(layout.ray_folder),
            "deployed": self.deployed,
            "processes": {name: asdict(process) for name, process in self.running.items()},
        }
        partial = layout.folder / "state.json.partial"
        cluster.write_secret(partial, json.dumps(content, indent=2))
        partial.replace(layout.folder / "state.json")

    def reap(self) -> None:
        """Let go of the children that this process started and that have ended."""
        for child in self._children:
            child.poll()


def load(folder: Path) -> Stack | None:
    """Return the stack that was started in a folder, or None."""
    path = folder.resolve() / "state.json"
    if not path.exists():
        return None
    content = json.loads(path.read_text())
    if content.get("version") != _VERSION:
        raise ResourceError(
            f"{path} must have version {_VERSION}, but has {content.get('version')}. Stop the stack with the "
            "version that started it, then delete the file."
        )
    running = {name: processes.Process(**process) for name, process in content["processes"].items()}
    layout = Layout(folder.resolve(), content["ports"], Path(content["ray_folder"]))
    return Stack(layout, running, content["deployed"])


def start(
    folder: Path,
    *,
    names: Sequence[str] = ("s3", "prefect", "ray", "worker"),
    deploy: bool = True,
    preferred_ports: bool = True,
    progress: Progress = lambda *_: None,
) -> Stack:
    """Start what does not run yet.

    Args:
        folder: The stack's private folder; created if it does not exist.
        names: The services to start; a worker needs ``prefect``.
        deploy: Whether to deploy ``prefect.yaml`` if it changed; needs ``prefect`` and ``worker``.
        preferred_ports: Whether to take the usual ports if they are free; else any.
        progress: Called with the name of each service that is ready.

    Raises:
        UnreachableError: A service does not start; what did start goes on running.
        ResourceError: Another start or stop is under way, or the folder holds something else.
        ConfigError: A program is missing, or the flows cannot be deployed.
    """
    _check_ours(folder)
    with _exclusive(folder):
        stack = _prepare(folder, preferred=preferred_ports)
        wanted = [service for service in services.SERVICES if service.name in names]
        # A worker registers with a server that answers; all else starts side by side.
        for group in ([s for s in wanted if s.name != "worker"], [s for s in wanted if s.name == "worker"]):
            with ThreadPoolExecutor(max_workers=len(services.SERVICES)) as pool:
                list(pool.map(lambda service: _ensure(stack, service, progress), group))
        if deploy:
            _ensure_deployed(stack, progress)
        return stack


def stop(folder: Path, *, progress: Progress = lambda *_: None) -> None:
    """Stop all that runs, and what dead services left behind; secrets and data stay."""
    if not (folder / "state.json").exists():
        return
    with _exclusive(folder):
        if not (stack := load(folder)):
            return
        by_name = {service.name: service for service in services.SERVICES}
        # A run that is being stopped can still report to the server and to storage.
        for group in (["worker"], ["ray"], ["prefect", "s3"]):
            present = [by_name[name] for name in group if name in stack.running]
            with ThreadPoolExecutor(max_workers=len(group)) as pool:
                list(pool.map(lambda service: _stop(stack, service, progress), present))
        shutil.rmtree(stack.layout.ray_folder, ignore_errors=True)
        stack.save()


def purge(folder: Path) -> None:
    """Delete a stopped stack's folder, with its data and secrets, if it exists.

    Raises:
        ResourceError: The folder is not a stack's.
    """
    if folder.exists():
        _check_ours(folder)
        shutil.rmtree(folder)


def _check_ours(folder: Path) -> None:
    content = [path.name for path in folder.iterdir()] if folder.exists() else []
    if "state.json" not in content and content not in ([], ["lock"]):
        raise ResourceError(
            f"The stack's folder must be new or one that a stack lives in, but {folder} holds other things, such as "
            f"{min(content)}. Choose another with `--folder`."
        )


def _prepare(folder: Path, *, preferred: bool) -> Stack:
    stack = load(folder)
    if stack is None or not any(stack.alive(name) for name in stack.running):
        if stack:
            _clear(stack)
        ports = services.choose_ports(stack.layout.ports if stack else {}, preferred=preferred)
        layout = Layout(folder.resolve(), ports, cluster.short_folder())
        stack = Stack(layout, deployed=stack.deployed if stack else "")
    stack.save()  # first: it marks the folder as a stack's, for a start after one that was interrupted
    for name in ("logs", "prefect"):
        (stack.layout.folder / name).mkdir(mode=0o700, exist_ok=True)
    services.write_secrets(stack.layout)
    services.write_environment(stack.layout)
    return stack


def _clear(stack: Stack) -> None:
    """Remove what a stack left that did not end by a stop."""
    for process in stack.running.values():
        processes.stop(process, grace=0)
    shutil.rmtree(stack.layout.ray_folder, ignore_errors=True)


def _ensure(stack: Stack, service: Service, progress: Progress) -> None:
    layout, begun = stack.layout, time.monotonic()
    if stack.alive(service.name) and service.answers(layout):
        progress(service.title, service.where(layout), "running", 0.0)
        return
    if service.name in stack.running:
        processes.stop(stack.running[service.name], grace=service.grace, children_first=service.children_first)
    child = service.spawn(layout)
    stack.adopt(service.name, child)
    processes.wait_until(
        lambda: service.answers(layout),
        child=child,
        name=service.title,
        address=service.where(layout),
        log=layout.log(service.name),
        timeout=service.timeout,
    )
    progress(service.title, service.where(layout), "ready", time.monotonic() - begun)


def _ensure_deployed(stack: Stack, progress: Progress) -> None:
    digest, begun = services.deployed_digest(), time.monotonic()
    if stack.deployed == digest and services.is_deployed(stack.layout):
        # Deploying again would resume a schedule that a person has paused.
        progress("Flows", services.DEPLOYMENT, "running", 0.0)
        return
    services.deploy(stack.layout)
    stack.deployed = digest
    stack.save()
    progress("Flows", services.DEPLOYMENT, "ready", time.monotonic() - begun)


def _stop(stack: Stack, service: Service, progress: Progress) -> None:
    begun = time.monotonic()
    processes.stop(stack.running.pop(service.name), grace=service.grace, children_first=service.children_first)
    services.forget_sockets(stack.layout) if service.name == "s3" else None
    progress(service.title, service.where(stack.layout), "stopped", time.monotonic() - begun)


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as problem:
            raise ResourceError(
                f"One command at a time may start or stop the stack in {folder}, but another is under way. Wait for it."
            ) from problem
        yield
