"""Fixtures of the unit tests."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of published data outside the checkout."""
    folder = Path(__file__).resolve().parents[3] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: the data may not be redistributed with the code")
    return folder


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny matrices spread over threads mostly wait for one another."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _no_facts_of_other_tests() -> Iterator[None]:
    """Facts that a test adds to every log line, such as a run's id, end with the test."""
    logs = sys.modules.get("ada2i.jobs.logs")
    before = dict(logs._facts) if logs else {}
    yield
    logs = sys.modules.get("ada2i.jobs.logs")
    if logs is not None:
        logs._facts.clear()
        logs._facts.update(before)
