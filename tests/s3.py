"""An S3 server of a test module's own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ada2i.storage.s3 import client_for
from infra import stack as local
from infra.stack import Stack


@contextmanager
def own_s3(folder: Path) -> Iterator[Stack]:
    """Run an S3 server in a new folder, which this process's environment names while the block runs."""
    with pytest.MonkeyPatch.context() as patch:
        try:
            running = local.start(folder, names=("s3",), deploy=False, preferred_ports=False)
            for name, value in running.environment().items():
                if name.startswith("AWS_"):
                    patch.setenv(name, value)
            client_for.cache_clear()
            yield running
        finally:
            local.stop(folder)
            running.reap()
    client_for.cache_clear()
