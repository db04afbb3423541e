"""Facts about a cluster's nodes, from its dashboard: the host names, and the interpreter that started the head."""

import json
import re
from typing import Any

from ada2i.jobs.http import auth_headers, request

_WORKERS = re.compile(r"--python_worker_command=([\w./+-]+) ")  # an option of Ray's node process


def nodes(address: str) -> list[dict[str, Any]]:
    """Return what the dashboard knows about the living nodes; nothing if it does not answer."""
    status, body = request(f"{address}/nodes?view=summary", auth_headers())
    try:
        found: list[dict[str, Any]] = json.loads(body)["data"]["summary"] if status == 200 else []
        return [node for node in found if node["raylet"]["state"] == "ALIVE"]
    except (ValueError, KeyError, TypeError):
        return []


def hosts(address: str) -> set[str]:
    """Return the host names of the living nodes, as far as they are known."""
    return {name for node in nodes(address) if (name := node["raylet"].get("nodeManagerHostname"))}


def interpreter(address: str) -> str:
    """Return the Python that jobs are started with, as a word for the head's shell.

    That is the variable ``ADA2I_PYTHON`` of the head, else the interpreter of its ``ray start``, else ``python``.
    """
    commands = [
        f"{' '.join(map(str, node.get('cmdline') or []))} "
        for node in nodes(address)
        if node["raylet"].get("isHeadNode")
    ]
    found = next((match[1] for command in commands if (match := _WORKERS.search(command))), "python")
    return f'"${{ADA2I_PYTHON:-{found}}}"'
