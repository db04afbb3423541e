"""The session stack: one S3 server, one Prefect server, one Ray head and one worker for all integration tests."""

import shutil
from collections.abc import Iterator

import pytest
from hypothesis import settings

from ada2i.jobs import cluster
from infra import stack as local
from infra.stack import Stack
from tests.runs import client_settings

# Speed is measured in tests/benchmarks: on a busy machine a time limit fails tests that are right.
settings.register_profile("ada2i", deadline=None)
settings.load_profile("ada2i")


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The running stack; its clients' environment is this process's until the session ends."""
    folder = cluster.short_folder()
    with pytest.MonkeyPatch.context() as patch:
        try:
            running = local.start(folder, preferred_ports=False)
            for name, value in running.environment().items():
                patch.setenv(name, value)
            with client_settings(running):
                yield running
            running.reap()
        finally:
            local.stop(folder)
            shutil.rmtree(folder)
    running.reap()


@pytest.fixture(scope="session")
def root(stack: Stack) -> str:
    """Where the session's runs keep everything: a folder of the stack's bucket."""
    return f"{stack.environment()['ADA2I_ROOT']}/session"
