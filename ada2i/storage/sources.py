"""Files outside the root, in any store that fsspec opens: listed, read and compared, never written."""

import hashlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from ada2i.errors import DataError, InputError, NotFoundError
from ada2i.storage.retry import patiently
from ada2i.storage.translate import translated
from ada2i.storage.uris import is_remote, local_path, public

T = TypeVar("T")


def source_files(location: str, suffix: str) -> list[str]:
    """Return the URIs of the files at a location outside the root's layout: one file, or all files below a folder.

    Args:
        location: A path or any URI that fsspec opens.
        suffix: Required end of file names, such as ``.parquet``.

    Raises:
        NotFoundError: The location does not exist.
    """
    with translated(public(location)):
        fs, path = _fsspec(location)
        if from_source(location, lambda fs, path: fs.isfile(path)):
            return [location if is_remote(location) else Path(path).as_uri()]
        names = from_source(location, lambda fs, path: fs.find(path) if fs.exists(path) else [])
        found = sorted(name for name in names if str(name).endswith(suffix))
    if not found:
        raise NotFoundError(
            f"{public(location)} must be a {suffix} file or a folder with such files, but has none. Check the path.",
            uri=public(location),
        )
    return [str(fs.unstrip_protocol(name)) if is_remote(location) else Path(name).as_uri() for name in found]


def read_source(location: str) -> bytes:
    """Return the bytes of a file outside the root's layout, at a path or any URI that fsspec opens."""
    with translated(public(location)):
        data = from_source(location, lambda fs, path: fs.cat_file(path))
    if not isinstance(data, bytes):
        raise DataError(f"{public(location)} must be a file, but is {type(data).__name__}. Name a file.")
    return data


def source_digest(location: str) -> str:
    """Return the SHA-256 of a file outside the root's layout, reading it piece by piece."""
    with translated(public(location)):
        return from_source(location, _digest_of)


def _digest_of(fs: Any, path: str) -> str:
    with fs.open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def source_stamps(locations: Iterable[str]) -> dict[str, str]:
    """Return a stamp per file outside the root's layout that changes with its content; list each folder once.

    Absent files are left out, and so are files in stores without such a stamp: only S3 and similar stores (ETag)
    and local filesystems (inode, size, times) have one.
    """
    stamps: dict[str, str] = {}
    for folder, files in _by_folder(locations).items():
        if not is_remote(folder):
            stamps |= {location: stamp for location in files if (stamp := _local_stamp(location))}
            continue
        with translated(public(folder)), suppress(FileNotFoundError):
            infos = from_source(folder, lambda fs, path: fs.ls(path, detail=True))
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


def from_source(location: str, read: Callable[[Any, str], T]) -> T:
    """Read from a location outside the root's layout, by fsspec's filesystem and the path there."""
    fs, path = _fsspec(location)
    if not is_remote(location):
        return read(fs, path)
    return patiently(location.split("/")[2], lambda: read(fs, path))


def _fsspec(location: str) -> tuple[Any, str]:
    import fsspec

    try:
        fs, path = fsspec.core.url_to_fs(str(local_path(location) or location))
    except (ImportError, ValueError) as problem:  # an unknown scheme, or its package is missing
        raise InputError(
            f"{public(location)} must be a location that fsspec opens, but: {problem}. Correct it, or install "
            "the missing package."
        ) from problem
    return fs, str(path)
