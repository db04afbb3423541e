"""Objects in S3, at any endpoint: the client, and the calls that the store uses.

Endpoint and credentials come from the usual places of the AWS SDK (environment, profile, role). Temporary failures
are retried; permanent ones are raised as boto3 errors.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import count
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar

from ada2i.storage.retry import retried, status

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")

_BATCH: Final = 1000  # objects that one request may delete
_CONFLICTS: Final = 5  # tries if S3 answers 409: another conditional write is in progress


def get(uri: str) -> bytes:
    """Return an object's bytes."""
    bucket, key = split(uri)
    return _asked(lambda s3: s3.get_object(Bucket=bucket, Key=key)["Body"].read())


def size(uri: str) -> int:
    """Return the bytes of an object."""
    bucket, key = split(uri)
    return _asked(lambda s3: s3.head_object(Bucket=bucket, Key=key))["ContentLength"]


def get_range(uri: str, start: int, end: int) -> bytes:
    """Return an object's bytes from ``start`` to ``end`` (exclusive)."""
    bucket, key = split(uri)
    return _asked(lambda s3: s3.get_object(Bucket=bucket, Key=key, Range=f"bytes={start}-{end - 1}")["Body"].read())


def digest(uri: str) -> str:
    """Return the SHA-256 of an object, reading it piece by piece."""

    def read(s3: "S3Client") -> str:
        total = hashlib.sha256()
        for piece in s3.get_object(Bucket=bucket, Key=key)["Body"].iter_chunks(2**20):
            total.update(piece)
        return total.hexdigest()

    bucket, key = split(uri)
    return _asked(read)


def copy(uri: str, file: IO[bytes]) -> None:
    """Write an object's bytes to a file, piece by piece."""

    def read(s3: "S3Client") -> None:
        file.seek(0)
        file.truncate()
        for piece in s3.get_object(Bucket=bucket, Key=key)["Body"].iter_chunks(2**20):
            file.write(piece)

    bucket, key = split(uri)
    _asked(read)


def files(uri: str) -> list[str]:
    """Return the URI of an object, or those of all objects under a URI."""
    bucket, key = split(uri)
    if key and exists(uri):
        return [uri]
    keys = (entry["Key"] for page in _pages(bucket, _prefix(key)) for entry in page.get("Contents", ()))
    return [f"s3://{bucket}/{found}" for found in keys if not found.endswith("/")]


def stamps(folder: str) -> dict[str, str]:
    """Return the ETag of each object directly under a URI, by its URI."""
    bucket, key = split(folder)
    pages = _pages(bucket, _prefix(key), delimiter="/")
    return {f"s3://{bucket}/{entry['Key']}": entry["ETag"] for page in pages for entry in page.get("Contents", ())}


def put(uri: str, data: bytes) -> None:
    """Write an object; an existing one is replaced."""
    bucket, key = split(uri)
    _asked(lambda s3: s3.put_object(Bucket=bucket, Key=key, Body=data))


def put_if_absent(uri: str, data: bytes) -> bool:
    """Write an object unless it exists; return whether this call created it."""
    from botocore.exceptions import ClientError

    bucket, key = split(uri)
    tries = count()
    for attempt in range(_CONFLICTS):
        try:
            _asked(lambda s3: (next(tries), s3.put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")))
        except ClientError as problem:
            if status(problem) == 412:
                # If the answer to an earlier try was lost, that try may have written the object.
                return next(tries) > attempt + 1 and get(uri) == data
            if status(problem) != 409 or attempt == _CONFLICTS - 1:
                raise
            time.sleep(0.1 * 2**attempt)
        else:
            return True
    raise AssertionError  # unreachable: the last try returned or raised


def exists(uri: str) -> bool:
    """Return whether an object exists."""
    from botocore.exceptions import ClientError

    bucket, key = split(uri)
    try:
        _asked(lambda s3: s3.head_object(Bucket=bucket, Key=key))
    except ClientError as problem:
        if status(problem) == 404:
            return False
        raise
    return True


def children(uri: str) -> list[str]:
    """Return the names of the objects and folders directly under a URI, sorted."""
    bucket, key = split(uri)
    prefix = _prefix(key)
    found: set[str] = set()
    for page in _pages(bucket, prefix, delimiter="/"):
        found.update(entry["Prefix"] for entry in page.get("CommonPrefixes", ()))
        found.update(entry["Key"] for entry in page.get("Contents", ()))
    return sorted(name.removeprefix(prefix).rstrip("/") for name in found if name != prefix)


def newest(uri: str) -> float:
    """Return when the newest object under a URI was written, in seconds since the epoch, or 0 if there is no file."""
    bucket, key = split(uri)
    pages = _pages(bucket, _prefix(key))
    return max((entry["LastModified"].timestamp() for page in pages for entry in page.get("Contents", ())), default=0.0)


def objects(uri: str) -> dict[str, str]:
    """Return the ETag of each object under a URI, by its name relative to the URI."""
    bucket, key = split(uri)
    prefix = _prefix(key)
    entries = (entry for page in _pages(bucket, prefix) for entry in page.get("Contents", ()))
    return {entry["Key"].removeprefix(prefix): entry["ETag"] for entry in entries}


def delete(uris: Iterable[str]) -> None:
    """Delete objects of one bucket, if they exist."""
    places = [split(uri) for uri in uris]
    for start in range(0, len(places), _BATCH):
        _delete_keys(places[start][0], [key for _, key in places[start : start + _BATCH]])


def delete_folder(uri: str) -> None:
    """Delete all objects under a URI."""
    bucket, key = split(uri)
    for page in _pages(bucket, f"{key}/"):
        _delete_keys(bucket, [entry["Key"] for entry in page.get("Contents", ())])


def _prefix(key: str) -> str:
    """Return the prefix of the objects under a key; a bucket's own key is empty."""
    return f"{key}/" if key else ""


def _delete_keys(bucket: str, keys: list[str]) -> None:
    """Delete at most 1,000 objects in one request."""
    from botocore.exceptions import ClientError

    if len(keys) == 1:
        _asked(lambda s3: s3.delete_object(Bucket=bucket, Key=keys[0]))
    if len(keys) < 2:
        return

    def call(s3: "S3Client") -> None:
        answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True})
        for error in answer.get("Errors", ()):
            # The answer to the request is 200; a key's error has the status that it would have alone.
            lasting = {"AccessDenied": 403, "MalformedXML": 400}.get(error.get("Code", ""), 500)
            whole: Any = {"Error": error, "ResponseMetadata": {"HTTPStatusCode": lasting}}
            raise ClientError(whole, "DeleteObjects")

    _asked(call)


def _pages(bucket: str, prefix: str, *, delimiter: str = "") -> Iterator[Any]:
    """List objects, one page at a time."""
    question: dict[str, str] = {"Bucket": bucket, "Prefix": prefix} | ({"Delimiter": delimiter} if delimiter else {})
    while True:
        page: Any = _asked(lambda s3: s3.list_objects_v2(**question))  # type: ignore[arg-type]
        yield page
        if not page.get("IsTruncated"):
            return
        question["ContinuationToken"] = page["NextContinuationToken"]


def _asked(call: Callable[["S3Client"], T]) -> T:
    """Make an S3 call at the endpoint that the environment names now."""
    place = endpoint()
    return retried(place, lambda: call(client_for(place)))


def split(uri: str) -> tuple[str, str]:
    """Return the bucket and key of an S3 URI; the key may contain any character."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def endpoint() -> str:
    """Return the address that S3 calls go to, or "AWS"."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS"


@lru_cache
def client_for(endpoint: str) -> "S3Client":
    """Return the only client of an endpoint, with the credentials in the environment when it was created."""
    import boto3
    from botocore.config import Config

    # Path-style addresses: a private endpoint rarely resolves bucket.host.
    config = Config(
        connect_timeout=5,
        read_timeout=30,
        retries={"mode": "standard", "total_max_attempts": 1},  # `_asked` tries again
        s3={"addressing_style": "path"} if endpoint != "AWS" else {},
    )
    session = boto3.session.Session()  # its region is that of AWS_DEFAULT_REGION or the profile
    region = os.environ.get("AWS_REGION") or session.region_name or "us-east-1"
    return session.client("s3", config=config, region_name=region)
