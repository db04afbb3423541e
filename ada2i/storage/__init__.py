"""Objects behind URIs: folders (``file://`` or a plain path) and S3 (``s3://``, any endpoint).

Only this package uses fsspec and boto3. An object is complete or absent on both backends, and of concurrent calls of
``put_if_absent`` exactly one wins: by an exclusive hard link in a folder, or a conditional write (``If-None-Match: *``)
on S3. S3's endpoint and credentials come from the usual places of the AWS SDK (environment, profile, role) only.

Requests to an S3 server that is unreachable, failing or busy are retried; ``retry`` says which, how often and how long.
"""

import hashlib
import math
import os
import time
import uuid

from ada2i.errors import AccessError, IntegrityError
from ada2i.storage import cache, folders, s3
from ada2i.storage.sources import open_source, read_source, source_digest, source_files, source_stamps
from ada2i.storage.translate import translated
from ada2i.storage.uris import check, clean, join, local_path, name_of, normalise, public

__all__ = [
    "age",
    "check",
    "check_writable",
    "children",
    "clean",
    "delete",
    "delete_folder",
    "delete_partials",
    "digest",
    "exists",
    "get",
    "get_checked",
    "join",
    "local_path",
    "name_of",
    "normalise",
    "objects",
    "open_source",
    "public",
    "put",
    "put_if_absent",
    "read_source",
    "source_digest",
    "source_files",
    "source_stamps",
]


def digest(data: bytes) -> str:
    """Return the SHA-256 of some bytes in hex: the digest recorded for every stored object."""
    return hashlib.sha256(data).hexdigest()


def get(uri: str, *, stamp: str = "") -> bytes:
    """Return an object's bytes.

    Args:
        uri: Its location.
        stamp: Its stamp from ``objects``, just listed: the bytes of an S3 object are then kept on this machine, and a
            call with the same stamp makes no request.

    Raises:
        NotFoundError: There is no such object.
        AccessError: It may not be read.
        UnreachableError: The store does not answer.
    """
    with translated(uri):
        if path := local_path(uri):
            return path.read_bytes()
        return cache.cached(f"{s3.endpoint()} {uri} {stamp}", lambda: s3.get(uri)) if stamp else s3.get(uri)


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
            f"it, or delete {uri.rpartition('/')[0]} and repeat the command that wrote it; while its manifest exists, "
            "nothing is rewritten.",
            uri=uri,
        )
    return data


def put(uri: str, data: bytes) -> None:
    """Write an object; an existing one is replaced. A reader sees the old or the new bytes, never a mixture."""
    with translated(uri):
        if path := local_path(uri):
            folders.put(path, data)
        else:
            s3.put(uri, data)


def put_if_absent(uri: str, data: bytes) -> bool:
    """Write an object unless it exists.

    Returns:
        Whether this call created it; if not, the existing object is unchanged. Of concurrent callers, one gets true.
        If S3's answer is lost, the retry finds an existing object. It counts as this call's own if it has the
        same bytes, so only callers with equal bytes may then both get true.
    """
    with translated(uri):
        if path := local_path(uri):
            return folders.put_if_absent(path, data)
        return s3.put_if_absent(uri, data)


def exists(uri: str) -> bool:
    """Return whether an object exists."""
    with translated(uri):
        if path := local_path(uri):
            return path.is_file()
        return s3.exists(uri)


def children(uri: str) -> list[str]:
    """Return the names of the objects and folders directly under a URI, sorted; an empty list if it does not exist."""
    with translated(uri):
        if path := local_path(uri):
            return folders.children(path)
        return s3.children(uri)


def objects(uri: str) -> dict[str, str]:
    """Return the objects under a URI, at any depth: by name, relative to the URI, a stamp that changes with the bytes.

    On S3 1,000 objects take one request. In a folder, remains of killed writes are listed, too.
    """
    with translated(uri):
        if path := local_path(uri):
            return folders.objects(path)
        return s3.objects(uri)


def delete(*uris: str) -> None:
    """Delete some objects of one store, if they exist, in any order; on S3 1,000 in one request."""
    with translated(", ".join(uris[:1])):
        for path in filter(None, map(local_path, uris)):
            path.unlink(missing_ok=True)
        s3.delete([uri for uri in uris if local_path(uri) is None])


def delete_folder(uri: str) -> None:
    """Delete all objects under a URI, if there are any."""
    with translated(uri):
        if path := local_path(uri):
            folders.delete_folder(path)
        else:
            s3.delete_folder(uri)


def age(uri: str) -> float:
    """Return the seconds since the newest object under a URI was written, or infinity if there is no object."""
    with translated(uri):
        newest = folders.newest(path) if (path := local_path(uri)) else s3.newest(uri)
    return time.time() - newest if newest else math.inf


def delete_partials(uri: str, *, older_than_s: float) -> list[str]:
    """Delete remains of killed writes under a URI, which only folders can have, and return their locations.

    Args:
        uri: Where to look, at any depth.
        older_than_s: Minimum age in seconds; younger ones may belong to a running writer.
    """
    path = local_path(uri)
    if path is None:
        return []
    with translated(uri):
        return [partial.as_uri() for partial in folders.delete_partials(path, older_than_s=older_than_s)]


def check_writable(uri: str) -> None:
    """Check that objects can be written under a URI, before any work starts; leave nothing behind.

    Raises:
        AccessError: Credentials are missing or refused, the bucket does not exist, or the folder may not be written.
        UnreachableError: The endpoint does not answer.
    """
    if path := local_path(uri):
        home = next(parent for parent in (path, *path.parents) if parent.exists())
        if not home.is_dir() or not os.access(home, os.W_OK):
            raise AccessError(
                f"{uri} must be a writable folder, but {home} is not writable. Choose another with `--root`.", uri=uri
            )
        return
    probe = join(uri, f".probe-{uuid.uuid4().hex}")
    with translated(uri):
        s3.put_if_absent(probe, b"")  # as the registry writes: the store must support conditional writes
        s3.delete([probe])
