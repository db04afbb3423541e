"""Fixtures of the store's tests."""

import time
from collections.abc import Iterator

import boto3
import pytest
from botocore.stub import Stubber

from ada2i.storage import s3 as backend


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stubber]:
    """S3 with answers that no server of ours gives: AWS says 409 while another conditional write is under way."""
    client = boto3.session.Session().client(
        "s3", region_name="us-east-1", aws_access_key_id="fake", aws_secret_access_key="fake"
    )
    monkeypatch.setattr(backend, "client_for", lambda _: client)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with Stubber(client) as stubber:
        yield stubber
