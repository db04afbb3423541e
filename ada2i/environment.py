"""The machine and packages of a run, so that it can be reproduced; no environment variable is ever recorded."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch

_PACKAGE = Path(__file__).resolve().parent


def environment(origin: Mapping[str, Any], ranks: Sequence[Mapping[str, Any]]) -> bytes:
    """Return code, packages and machines of a training, as JSON, from its rank 0.

    Args:
        origin: Facts that the job's driver knows: ``ray_job_id``, and ``placement``, where it trains and why.
        ranks: What ``machine_facts`` returns on each rank, rank 0's first. Rank 0's facts are at the top level; if the
            ranks run on different kinds of machine, ``machines`` lists each kind with its number of workers.
    """
    code = _revision(_PACKAGE)
    kinds = [fact for place, fact in enumerate(ranks) if fact not in ranks[:place]]
    facts: dict[str, Any] = {**({"code": code} if code else {}), **origin, **ranks[0]}
    if len(kinds) > 1:
        facts["machines"] = [{**kind, "workers": sum(fact == kind for fact in ranks)} for kind in kinds]
    facts["packages"] = _packages()
    return json.dumps(facts, indent=1).encode()


def machine_facts() -> dict[str, Any]:
    """Return Python, torch, platform, processors and GPUs of this process, without anything that names the machine."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "gpus": gpus,
        "torch": torch.__version__,
    }
    return facts | ({"cuda": torch.version.cuda} if gpus else {})


def revision(package: Path) -> str | None:
    """Return the git commit of a package, followed by ``-dirty`` if files of the package are changed or new.

    Args:
        package: A folder directly below the checkout's.

    Returns:
        The full commit. If git does not know it, the content of the file ``REVISION`` next to the package, which the
        image has; None if that does not exist either.
    """
    return _commit(package) or _noted(package.parent / "REVISION")


_revision = cache(revision)  # of the code that this process has loaded


@cache
def _packages() -> dict[str, str]:
    packages = {found.name: found.version for found in distributions() if found.name}
    return dict(sorted(packages.items(), key=lambda item: item[0].lower()))


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
