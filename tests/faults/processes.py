"""Processes that start fast: forked from one that has imported everything and runs no thread."""

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from typing import Any

FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(
    ["tests.faults.test_registry_races", "tests.faults.test_registry_kill", "tests.integration.ranks", "boto3"]
)


def spawn(task: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    """Start a function in a process of its own."""
    process = FORKSERVER.Process(target=_call, args=(dict(os.environ), task, arguments))
    process.start()
    return process


def _call(environment: dict[str, str], task: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    os.environ.update(environment)  # the process that it was forked from may be older than the stack
    task(*arguments)
