"""What a run ran on, for whoever must reproduce it; no environment variable is ever recorded."""

import json
import os
import platform
from importlib.metadata import distributions

import torch


def environment() -> bytes:
    """Return Python, platform, processors, GPUs and all installed packages, as JSON."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    packages = {found.name: found.version for found in distributions() if found.name}
    facts = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "gpus": gpus,
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
    }
    return json.dumps(facts, indent=1).encode()
