"""The session stack: one S3 server, one Prefect server, one Ray head and one worker for all integration tests."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import settings

from ada2i.jobs import cluster
from infra import stack as local
from infra.stack import Stack

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
            with _prefect_settings(running):
                yield running
            running.reap()
        finally:
            local.stop(folder)
            shutil.rmtree(folder)
    running.reap()


@contextmanager
def _prefect_settings(running: Stack) -> Iterator[None]:
    # Prefect reads its environment when it is imported, which some test module has done before.
    from prefect import settings

    environment = running.environment()
    names = (
        "PREFECT_API_URL",
        "PREFECT_API_AUTH_STRING",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY",
    )
    with settings.temporary_settings({getattr(settings, name): environment[name] for name in names}):
        yield


@pytest.fixture(scope="session")
def root(stack: Stack) -> str:
    """Where the session's runs keep everything: a folder of the stack's bucket."""
    return f"{stack.environment()['ADA2I_ROOT']}/session"
