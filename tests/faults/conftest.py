"""Fixtures of the fault tests."""

import uuid
from pathlib import Path

import pytest


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.integration)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty storage root: a folder, and one on S3, which needs the session's stack."""
    if request.param == "folder":
        return (tmp_path / "store").as_uri()
    return f"{request.getfixturevalue('root')}-{uuid.uuid4().hex[:8]}"
