"""Fixtures of the registry's tests."""

from pathlib import Path

import pytest


@pytest.fixture
def root(tmp_path: Path) -> str:
    """An empty storage root."""
    return (tmp_path / "store").as_uri()
