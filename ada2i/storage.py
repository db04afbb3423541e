"""Objects behind URIs: folders (``file://`` or a plain path) and S3 (``s3://``, any endpoint).

The only code that knows fsspec and boto3. An object is complete or absent on both backends, and ``put_if_absent`` has
one winner on both: an exclusive hard link in a folder, a conditional write (``If-None-Match: *``) on S3. S3 takes its
endpoint and credentials from the usual places of the AWS SDK (environment, profile, role), never from a config.

An S3 that is away, broken or busy is asked again for 90 s; one that never answered this process, whose address may be
wrong, for 8 s.
"""

import errno
import hashlib
import logging
import math
import os
import random
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

from ada2i.errors import AccessError, Ada2iError, DataError, InputError, IntegrityError, NotFoundError, UnreachableError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = logging.getLogger(__name__)

T = TypeVar("T")

_PARTIAL = ".partial-"  # prefix of files that a killed write may leave in a folder; never listed
_CONFLICTS = 5  # tries when S3 answers 409: another conditional write is under way
_PATIENCE_S: Final = 90.0
_FIRST_PATIENCE_S: Final = 8.0  # seconds, of a place that never answered: a wrong address, most likely
_LONGEST_PAUSE_S: Final = 5.0
_PASSING: Final = frozenset({"RequestTimeout", "SlowDown", "Throttling", "ThrottlingException"})  # whatever the status

_answered: set[str] = set()  # endpoints that did


def normalise(location: str) -> str:
    """Return the URI of a location: a path becomes an absolute ``file://`` URI; trailing slashes go.

    Raises:
        InputError: The scheme is neither ``file`` nor ``s3``, or an S3 URI names no bucket.
    """
    if not location.strip():
        raise InputError("A location must be a path or a URI, but is empty. Name a folder or s3://bucket/prefix.")
    scheme = location.partition("://")[0] if "://" in location else ""
    if not scheme:
        return Path(location).expanduser().resolve().as_uri()
    parts = urlsplit(location)
    if scheme == "file" and parts.query + parts.fragment:
        raise InputError(f"{location} must be a folder, but has a `?` or `#`. Write them as %3F and %23.", uri=location)
    if scheme == "file" and parts.netloc in ("", "localhost"):  # file://data/x would name a host
        return Path(unquote(urlsplit(location).path)).resolve().as_uri()
    if scheme == "s3" and urlsplit(location).netloc:
        return location.rstrip("/")
    raise InputError(f"{location} must be a folder, file:///path or s3://bucket/prefix. Mend it.", uri=location)


def join(uri: str, *parts: str) -> str:
    """Append path segments to a URI."""
    return "/".join([uri.rstrip("/"), *parts])


def local_path(uri: str) -> Path | None:
    """Return the path of a ``file://`` URI, or None for other schemes."""
    return Path(unquote(urlsplit(uri).path)) if uri.startswith("file://") else None


def digest(data: bytes) -> str:
    """Return the SHA-256 of some bytes in hex: the digest recorded for every stored object."""
    return hashlib.sha256(data).hexdigest()


def get(uri: str) -> bytes:
    """Return an object's bytes.

    Raises:
        NotFoundError: There is no such object.
        AccessError: It may not be read.
        UnreachableError: The store does not answer.
    """
    with _translated(uri):
        if path := local_path(uri):
            return path.read_bytes()
        bucket, key = _split(uri)
        return _asked(lambda s3: s3.get_object(Bucket=bucket, Key=key)["Body"].read())


def get_checked(uri: str, *, size: int, sha256: str) -> bytes:
    """Return an object's bytes after checking them against the recorded size and digest.

    Raises:
        IntegrityError: The bytes differ from the record.
    """
    data = get(uri)
    found = digest(data)
    if len(data) != size or found != sha256:
        raise IntegrityError(
            f"{uri} must hold the {size} bytes with SHA-256 {sha256[:16]}... that its manifest records, but holds "
            f"{len(data)} bytes with {found[:16]}.... The object was changed or damaged after it was written: restore "
            f"it, or delete {uri.rpartition('/')[0]} and run again what wrote it; while its manifest is there, nothing "
            "is rewritten.",
            uri=uri,
        )
    return data


def open_object(uri: str) -> IO[bytes]:
    """Open an object for reading here and there, such as a file's footer; its digest cannot be checked then.

    Raises:
        NotFoundError: There is no such object.
    """
    with _translated(uri):
        options = {} if local_path(uri) else {"block_size": 2**16}
        file: IO[bytes] = _from_source(uri, lambda fs, path: fs.open(path, "rb", **options))
    return file


def put(uri: str, data: bytes) -> None:
    """Write an object, replacing what is there; a reader sees the old bytes or the new ones, never a mixture."""
    with _translated(uri):
        if path := local_path(uri):
            with _partial_file(path, data) as partial:
                partial.replace(path)
                _sync_folder(path.parent)
            return
        bucket, key = _split(uri)
        _asked(lambda s3: s3.put_object(Bucket=bucket, Key=key, Body=data))


def put_if_absent(uri: str, data: bytes) -> bool:
    """Write an object only where there is none.

    Returns:
        Whether this call created it; false leaves what is there untouched. Of many callers at once, one gets true.
        Where S3's answer is lost on the way, the next try finds an object there, which counts as this call's own if it
        has its bytes: only callers with equal bytes may then both get true.
    """
    with _translated(uri):
        if path := local_path(uri):
            with _partial_file(path, data) as partial:
                try:
                    os.link(partial, path)
                except FileExistsError:
                    return False
                _sync_folder(path.parent)
                return True
        return _put_if_absent_s3(uri, data)


def exists(uri: str) -> bool:
    """Tell whether an object exists."""
    with _translated(uri):
        if path := local_path(uri):
            return path.is_file()
        bucket, key = _split(uri)
        from botocore.exceptions import ClientError

        try:
            _asked(lambda s3: s3.head_object(Bucket=bucket, Key=key))
        except ClientError as problem:
            if _status(problem) == 404:
                return False
            raise
        return True


def children(uri: str) -> list[str]:
    """Return the names of the objects and folders directly under a URI, sorted; none where there is nothing."""
    with _translated(uri):
        if path := local_path(uri):
            return sorted(p.name for p in path.iterdir() if not p.name.startswith(_PARTIAL)) if path.is_dir() else []
        bucket, key = _split(uri)
        prefix = f"{key}/" if key else ""
        found: set[str] = set()
        for page in _pages(bucket, prefix, delimiter="/"):
            found.update(entry["Prefix"] for entry in page.get("CommonPrefixes", ()))
            found.update(entry["Key"] for entry in page.get("Contents", ()))
        return sorted(name.removeprefix(prefix).rstrip("/") for name in found if name != prefix)


def delete(uri: str) -> None:
    """Delete an object; nothing happens where there is none."""
    with _translated(uri):
        if path := local_path(uri):
            path.unlink(missing_ok=True)
            return
        bucket, key = _split(uri)
        _delete_key(bucket, key)


def delete_folder(uri: str) -> None:
    """Delete all objects under a URI; nothing happens where there are none."""
    with _translated(uri):
        if path := local_path(uri):
            shutil.rmtree(path, ignore_errors=False) if path.exists() else None
            return
        bucket, key = _split(uri)
        for page in _pages(bucket, f"{key}/"):
            for entry in page.get("Contents", ()):
                _delete_key(bucket, entry["Key"])


def _delete_key(bucket: str, key: str) -> None:
    _asked(lambda s3: s3.delete_object(Bucket=bucket, Key=key))


def age(uri: str) -> float:
    """Return the seconds since the newest object under a URI was written; infinite where there is none."""
    with _translated(uri):
        if path := local_path(uri):
            newest = max(map(_written, _files(path)), default=0.0)
        else:
            bucket, key = _split(uri)
            pages = _pages(bucket, f"{key}/")
            times = (entry["LastModified"].timestamp() for page in pages for entry in page.get("Contents", ()))
            newest = max(times, default=0.0)
    return time.time() - newest if newest else math.inf


def delete_partials(uri: str, *, older_than_s: float) -> list[str]:
    """Delete what killed writes left under a URI, which only folders know, and return where it was.

    Args:
        uri: Where to look, at any depth.
        older_than_s: Seconds; younger ones may belong to a writer that is alive.
    """
    path, deleted = local_path(uri), []
    if path is None:
        return []
    with _translated(uri):
        for partial in sorted(found for found in _files(path) if found.name.startswith(_PARTIAL)):
            if time.time() - _written(partial) >= older_than_s:
                partial.unlink(missing_ok=True)
                deleted.append(partial.as_uri())
    return deleted


def check_writable(uri: str) -> None:
    """Make sure that objects can be written under a URI, before any work starts; leaves nothing behind.

    Raises:
        AccessError: Credentials are missing or refused, the bucket does not exist, or the folder may not be written.
        UnreachableError: The endpoint does not answer.
    """
    if path := local_path(uri):
        home = next(parent for parent in (path, *path.parents) if parent.exists())
        if not home.is_dir() or not os.access(home, os.W_OK):
            raise AccessError(
                f"{uri} must be a folder that can be written, but {home} cannot. Choose another with `--root`.", uri=uri
            )
        return
    bucket, prefix = _split(uri)
    probe = f"{prefix}/.probe-{uuid.uuid4().hex}".lstrip("/")
    with _translated(uri):
        _asked(lambda s3: s3.put_object(Bucket=bucket, Key=probe, Body=b""))
        _delete_key(bucket, probe)


def source_files(location: str, suffix: str) -> list[str]:
    """Return the URIs of the files at a location outside our own layout: one file, or all below a folder.

    Args:
        location: A path or any URI that fsspec opens.
        suffix: What file names must end with, such as ``.parquet``.

    Raises:
        NotFoundError: Nothing is there.
    """
    with _translated(public(location)):
        fs, path = _fsspec(location)
        if _from_source(location, lambda fs, path: fs.isfile(path)):
            return [location if _is_remote(location) else Path(path).as_uri()]
        names = _from_source(location, lambda fs, path: fs.find(path) if fs.exists(path) else [])
        found = sorted(name for name in names if str(name).endswith(suffix))
    if not found:
        raise NotFoundError(
            f"{public(location)} must be a {suffix} file or a folder with some, but holds none. Check the path.",
            uri=public(location),
        )
    return [str(fs.unstrip_protocol(name)) if _is_remote(location) else Path(name).as_uri() for name in found]


def read_source(location: str) -> bytes:
    """Return the bytes of a file outside our own layout, at a path or any URI that fsspec opens."""
    with _translated(public(location)):
        data = _from_source(location, lambda fs, path: fs.cat_file(path))
    if not isinstance(data, bytes):
        raise DataError(f"{public(location)} must be a file, but is {type(data).__name__}. Name a file.")
    return data


def source_digest(location: str) -> str:
    """Return the SHA-256 of a file outside our own layout, which is read piece by piece."""
    with _translated(public(location)):
        return _from_source(location, _digest_of)


def _digest_of(fs: Any, path: str) -> str:
    with fs.open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def source_stamps(locations: Iterable[str]) -> dict[str, str]:
    """Return, by file outside our own layout, what changes whenever its content does; each folder is listed once.

    Files that are absent are left out, and so are those of stores that tell no such thing: only S3 and the like (ETag)
    and local filesystems (inode, size, times) do.
    """
    stamps: dict[str, str] = {}
    for folder, files in _by_folder(locations).items():
        if not _is_remote(folder):
            stamps |= {location: stamp for location in files if (stamp := _local_stamp(location))}
            continue
        with _translated(public(folder)), suppress(FileNotFoundError):
            infos = _from_source(folder, lambda fs, path: fs.ls(path, detail=True))
            found = {str(info["name"]): info.get("ETag") or info.get("etag") for info in infos}
            tags = {location: found.get(_fsspec(location)[1]) for location in files}
            stamps |= {location: str(tag) for location, tag in tags.items() if tag}
    return stamps


def _by_folder(locations: Iterable[str]) -> dict[str, list[str]]:
    folders: dict[str, list[str]] = {}
    for location in locations:
        folders.setdefault(location.rpartition("/")[0], []).append(location)
    return folders


def _local_stamp(location: str) -> str | None:
    path = local_path(location) or Path(location)
    try:
        found = path.stat()
    except OSError:
        return None
    return f"{found.st_dev}-{found.st_ino}-{found.st_size}-{found.st_mtime_ns}-{found.st_ctime_ns}"


def public(location: str) -> str:
    """Return a location as it may be shown and stored: without user, password and signature, which URLs may carry."""
    if not _is_remote(location):
        return location
    parts = urlsplit(location)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _is_remote(location: str) -> bool:
    return "://" in location and not location.startswith("file://")


def _from_source(location: str, read: Callable[[Any, str], T]) -> T:
    """Read from a place outside our own layout, by fsspec's filesystem and the path there."""
    fs, path = _fsspec(location)
    if not _is_remote(location):
        return read(fs, path)
    return _patiently(location.split("/")[2], lambda: read(fs, path))


def _fsspec(location: str) -> tuple[Any, str]:
    import fsspec

    if location.startswith("file://"):
        location = unquote(urlsplit(location).path)
    try:
        fs, path = fsspec.core.url_to_fs(location)
    except (ImportError, ValueError) as problem:  # a scheme that fsspec does not know, or whose package is missing
        raise InputError(
            f"{public(location)} must be at a place that fsspec opens, but: {problem}. Mend the location, or install "
            "what is missing."
        ) from problem
    return fs, str(path)


def _put_if_absent_s3(uri: str, data: bytes) -> bool:
    from botocore.exceptions import ClientError

    bucket, key = _split(uri)
    tries = count()
    for attempt in range(_CONFLICTS):
        try:
            _asked(lambda s3: (next(tries), s3.put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")))
        except ClientError as problem:
            if _status(problem) == 412:
                # After a try whose answer was lost, neither a conflict's nor this one, the object may be that try's.
                return next(tries) > attempt + 1 and get(uri) == data
            if _status(problem) != 409 or attempt == _CONFLICTS - 1:
                raise
            time.sleep(0.1 * 2**attempt)
        else:
            return True
    raise AssertionError  # the last try returned or raised


def _pages(bucket: str, prefix: str, *, delimiter: str = "") -> Iterator[Any]:
    """List objects, a page at a time."""
    question: dict[str, str] = {"Bucket": bucket, "Prefix": prefix} | ({"Delimiter": delimiter} if delimiter else {})
    while True:
        page: Any = _asked(lambda s3: s3.list_objects_v2(**question))  # type: ignore[arg-type]
        yield page
        if not page.get("IsTruncated"):
            return
        question["ContinuationToken"] = page["NextContinuationToken"]


def _asked(call: Callable[["S3Client"], T]) -> T:
    """Make an S3 call."""
    return _patiently(_endpoint(), lambda: call(_client()))


def _patiently(place: str, call: Callable[[], T]) -> T:
    """Make a call; try again what may pass, after pauses that grow and that differ from caller to caller."""
    begun = time.monotonic()
    for attempt in count():
        try:
            answer = call()
        except Exception as problem:
            if hasattr(problem, "response"):  # it does answer
                _answered.add(place)
            patience = _PATIENCE_S if place in _answered else _FIRST_PATIENCE_S
            if not _may_pass(problem) or time.monotonic() - begun > patience:
                raise
            if attempt == 3:  # the first ones are every day's
                log.warning("%s fails, and is asked again for %.0f s: %s", place, patience, problem)
            time.sleep(random.uniform(0.5, 1.0) * min(0.1 * 2**attempt, _LONGEST_PAUSE_S))
        else:
            _answered.add(place)
            return answer
    raise AssertionError  # counts for ever


def _may_pass(problem: Exception) -> bool:
    """Tell whether the same call may succeed a little later: S3 is away, broken or busy, rather than saying no."""
    from botocore import exceptions as aws
    from urllib3.exceptions import HTTPError

    if isinstance(problem, aws.ClientError):
        code = problem.response.get("Error", {}).get("Code", "")
        return _status(problem) >= 500 or _status(problem) == 429 or code in _PASSING
    if isinstance(problem, OSError):  # fsspec's; EBUSY is what it makes of a busy S3
        return isinstance(problem, ConnectionError | TimeoutError) or problem.errno == errno.EBUSY
    # The last two: an answer that breaks off while it is read.
    return isinstance(problem, aws.ConnectionError | aws.HTTPClientError | aws.IncompleteReadError | HTTPError)


@contextmanager
def _partial_file(path: Path, data: bytes) -> Iterator[Path]:
    # A kill in here leaves a `.partial-*` file: never listed, never read; deleted with its folder, or
    # by `delete_partials`.
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent / f"{_PARTIAL}{uuid.uuid4().hex}"
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield partial
    finally:
        partial.unlink(missing_ok=True)


def _files(folder: Path) -> Iterator[Path]:
    """Return the files of a folder, at any depth; folders that go meanwhile are passed over."""
    return (Path(home, name) for home, _, names in os.walk(folder) for name in names)


def _written(path: Path) -> float:
    """Return when a file was written, in seconds since the epoch; 0 for folders, and for one that is gone meanwhile."""
    with suppress(FileNotFoundError):
        return path.stat().st_mtime if path.is_file() else 0.0
    return 0.0


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # not every filesystem syncs folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def _endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3", os.environ.get("AWS_ENDPOINT_URL", "AWS"))


def _client() -> "S3Client":
    return _client_for(_endpoint())


@lru_cache
def _client_for(endpoint: str) -> "S3Client":
    import boto3
    from botocore.config import Config

    # Path-style addresses: a private endpoint rarely resolves bucket.host.
    config = Config(
        connect_timeout=5,
        read_timeout=30,
        retries={"mode": "standard", "total_max_attempts": 1},  # `_asked` tries again
        s3={"addressing_style": "path"} if endpoint != "AWS" else {},
    )
    return boto3.session.Session().client("s3", config=config, region_name=os.environ.get("AWS_REGION", "us-east-1"))


def _status(problem: Any) -> int:
    return int(problem.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


@contextmanager
def _translated(uri: str) -> Iterator[None]:
    """Turn what a backend raises into this package's errors."""
    try:
        yield
    except Ada2iError:
        raise
    except OSError as problem:
        raise _folder_error(uri, problem) from problem
    except Exception as problem:
        if (ours := _s3_error(uri, problem)) is None:
            raise
        raise ours from problem


def _folder_error(uri: str, problem: OSError) -> Ada2iError:
    if isinstance(problem, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return NotFoundError(f"{uri} does not exist. Check the location.", uri=uri)
    if isinstance(problem, PermissionError):
        return AccessError(f"{uri} may not be read or written: {problem}. Mend the permissions.", uri=uri)
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return UnreachableError(f"{uri} cannot be written: the disk is full. Free some space and run again.", uri=uri)
    return UnreachableError(f"{uri} failed: {type(problem).__name__}: {problem}. Check the location.", uri=uri)


def _s3_error(uri: str, problem: Exception) -> Ada2iError | None:
    from botocore import exceptions as aws

    endpoint = _endpoint()
    if isinstance(problem, aws.NoCredentialsError | aws.PartialCredentialsError | aws.ProfileNotFound):
        return AccessError(
            f"{uri} needs S3 credentials, but found none. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "AWS_PROFILE.",
            uri=uri,
        )
    if isinstance(problem, aws.ClientError):
        return _s3_answer(uri, endpoint, problem)
    if isinstance(problem, aws.BotoCoreError | ValueError):
        return UnreachableError(
            f"{uri} must be reachable at {endpoint}, but: {problem}. Check AWS_ENDPOINT_URL and that the server is up.",
            uri=uri,
        )
    return None


def _s3_answer(uri: str, endpoint: str, problem: Any) -> Ada2iError:
    code, status = problem.response.get("Error", {}).get("Code", "?"), _status(problem)
    if code == "NoSuchBucket":
        return AccessError(f"{uri}: the bucket does not exist at {endpoint}. Create it, or mend the URI.", uri=uri)
    if status == 404:
        return NotFoundError(f"{uri} does not exist at {endpoint}. Check the location.", uri=uri)
    if status in (400, 401, 403):
        return AccessError(
            f"{uri}: {endpoint} refused the S3 credentials ({code}). Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY "
            "and what they may do.",
            uri=uri,
        )
    return UnreachableError(f"{uri}: {endpoint} answered {status} {code}. Try again later.", uri=uri)
