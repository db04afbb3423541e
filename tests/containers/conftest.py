"""One container host, with the whole stack of the Compose file, for all container tests."""

import shutil
from collections.abc import Iterator

import pytest

from ada2i.jobs import cluster
from tests.containers.host import SERVICES, Host


@pytest.fixture(scope="session")
def host() -> Iterator[Host]:
    """The stack as docs/runbook.md installs it: images, secrets, containers, deployments."""
    folder = cluster.short_folder()
    host = Host(folder)
    host.start()
    try:
        host.make_secrets()
        host.compose("up", "--detach", "--wait", *SERVICES)
        host.compose("run", "--rm", "deploy")
        yield host
    finally:
        host.stop()
        shutil.rmtree(folder)
