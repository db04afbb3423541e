"""Objects in S3: conflicts, answers that are lost or break off, refusals, and pages."""

import io
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ResponseStreamingError
from botocore.stub import Stubber

from ada2i import storage
from ada2i.errors import AccessError, UnreachableError
from ada2i.storage.s3 import split

LOST: list[dict[str, Any]] = [
    {"service_error_code": "InternalError", "http_status_code": 500},
    {"service_error_code": "SlowDown", "http_status_code": 503},
    {"service_error_code": "RequestTimeout", "http_status_code": 400},
]


def answer(s3: Stubber, status: int | None) -> None:
    expected = {"Bucket": "bucket", "Key": "key", "Body": b"data", "IfNoneMatch": "*"}
    if status is None:
        s3.add_response("put_object", {}, expected)
    else:
        s3.add_client_error("put_object", http_status_code=status, expected_params=expected)


@pytest.mark.parametrize(
    ("answers", "created"), [([None], True), ([412], False), ([409, None], True), ([409, 409, 412], False)]
)
def test_conflicts_on_s3_are_tried_again(s3: Stubber, answers: list[int | None], created: bool) -> None:
    for status in answers:
        answer(s3, status)
    assert storage.put_if_absent("s3://bucket/key", b"data") is created
    s3.assert_no_pending_responses()


def test_endless_conflicts_on_s3(s3: Stubber) -> None:
    for _ in range(5):
        answer(s3, 409)
    with pytest.raises(UnreachableError, match="answered 409") as caught:
        storage.put_if_absent("s3://bucket/key", b"data")
    assert caught.value.retryable


@pytest.mark.parametrize("problem", LOST)
@pytest.mark.parametrize(("there", "created"), [(b"data", True), (b"other", False)])
def test_a_write_whose_answer_was_lost_is_recognised(
    s3: Stubber, problem: dict[str, Any], there: bytes, *, created: bool
) -> None:
    s3.add_client_error("put_object", **problem)
    answer(s3, 412)
    s3.add_response("get_object", {"Body": io.BytesIO(there)}, {"Bucket": "bucket", "Key": "key"})
    assert storage.put_if_absent("s3://bucket/key", b"data") is created
    s3.assert_no_pending_responses()


def test_a_lost_answer_is_remembered_over_a_conflict(s3: Stubber) -> None:
    s3.add_client_error("put_object", http_status_code=500)
    answer(s3, 409)
    answer(s3, 412)
    s3.add_response("get_object", {"Body": io.BytesIO(b"data")}, {"Bucket": "bucket", "Key": "key"})
    assert storage.put_if_absent("s3://bucket/key", b"data")
    s3.assert_no_pending_responses()


def test_a_truncated_answer_is_retried(s3: Stubber) -> None:
    class Broken:
        def read(self) -> bytes:
            raise ResponseStreamingError(error="broken off")

    for body in (Broken(), io.BytesIO(b"data")):
        s3.add_response("get_object", {"Body": body})
    assert storage.get("s3://bucket/key") == b"data"


@pytest.mark.parametrize(("code", "status"), [("ExpiredToken", 400), ("AccessDenied", 403)])
def test_a_refusal_is_not_retried(s3: Stubber, code: str, status: int) -> None:
    s3.add_client_error("get_object", service_error_code=code, http_status_code=status)
    with pytest.raises(AccessError, match=rf"refused the S3 credentials \({code}\)"):
        storage.get("s3://bucket/key")
    s3.assert_no_pending_responses()


def test_lists_go_on_where_a_page_ends(s3: Stubber) -> None:
    pages: list[dict[str, Any]] = [{"IsTruncated": True, "NextContinuationToken": "t"}, {"IsTruncated": False}]
    for page, key in zip(pages, ("folder/a", "folder/b/c"), strict=True):
        s3.add_response("list_objects_v2", {**page, "Contents": [{"Key": key, "LastModified": datetime.now(UTC)}]})
    assert storage.age("s3://bucket/folder") < 60
    s3.assert_no_pending_responses()


@pytest.mark.parametrize(("uri", "prefix"), [("s3://bucket", ""), ("s3://bucket/folder", "folder/")])
def test_lists_of_a_bucket_and_of_a_folder(s3: Stubber, uri: str, prefix: str) -> None:
    found = {"Contents": [{"Key": f"{prefix}a/b", "ETag": "e", "LastModified": datetime.now(UTC)}]}
    for _ in range(2):
        s3.add_response("list_objects_v2", found, {"Bucket": "bucket", "Prefix": prefix})
    assert storage.objects(uri) == {"a/b": "e"}
    assert storage.age(uri) < 60


def test_a_key_may_hold_any_character() -> None:
    assert split("s3://bucket/a#b/c?d") == ("bucket", "a#b/c?d")
