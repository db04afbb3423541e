"""The machine and packages of a run, so that it can be reproduced; no environment variable is ever recorded."""

import json
import os
import platform
import subprocess
from contextlib import suppress
from importlib.metadata import distributions
from pathlib import Path

import torch

_PACKAGE = Path(__file__).resolve().parents[1]


def environment(*, ray_job_id: str) -> bytes:
    """Return code, Ray job, Python, platform, processors, GPUs and all installed packages, as JSON.

    Args:
        ray_job_id: The job's submission id, by which the cluster's dashboard and Jobs API know it.
    """
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    packages = {found.name: found.version for found in distributions() if found.name}
    code = revision(_PACKAGE)
    facts = ({"code": code} if code else {}) | {
        "ray_job_id": ray_job_id,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "gpus": gpus,
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
    }
    return json.dumps(facts, indent=1).encode()


def revision(package: Path) -> str | None:
    """Return the git commit of a package, followed by ``-dirty`` if its checkout's files differ.

    Args:
        package: A folder directly below the checkout's. Only its own files count, including new ones.

    Returns:
        The full commit. If git does not know it, the content of the file ``REVISION`` next to the package, which the
        image has; None if that does not exist either.
    """
    return _commit(package) or _noted(package.parent / "REVISION")


def _commit(package: Path) -> str | None:
    if not (package.parent / ".git").exists():  # a repository in a higher folder is not this package's
        return None
    git = ["git", "--no-optional-locks", "-C", str(package)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        status = subprocess.run([*git, "status", "--porcelain", "--", "."], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("-dirty" if status.stdout else "")


def _noted(file: Path) -> str | None:
    with suppress(FileNotFoundError):
        return file.read_text().strip() or None  # empty if the image was built without it
    return None
