"""Asking again has an end, and is for every place."""

import errno
import time

import fsspec
import pytest
from botocore.stub import Stubber

from ada2i import storage
from ada2i.errors import UnreachableError
from ada2i.storage import retry


def test_patience_has_an_end(s3: Stubber, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_RETRY_S", -1.0)
    s3.add_client_error("get_object", service_error_code="SlowDown", http_status_code=503)
    with pytest.raises(UnreachableError, match="answered 503 SlowDown") as caught:
        storage.get("s3://bucket/key")
    assert caught.value.retryable


def test_sources_are_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    memory, failures = fsspec.filesystem("memory"), [ConnectionResetError("away"), OSError(errno.EBUSY, "busy")]

    def cat_file(_path: str) -> bytes:
        if failures:
            raise failures.pop()
        return b"data"

    monkeypatch.setattr(memory, "cat_file", cat_file)
    assert storage.read_source("memory://place/a") == b"data"
