"""Files outside the root, in any store that fsspec opens: listed, read and compared, never written."""

import errno
import hashlib
import io
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final, TypeVar
from urllib.parse import urlsplit

from ada2i.errors import DataError, InputError, NotFoundError, ResourceError
from ada2i.storage import s3
from ada2i.storage.retry import retried
from ada2i.storage.translate import translated
from ada2i.storage.uris import check, clean, is_remote, local_path, public

T = TypeVar("T")

_BLOCK: Final = 2**16  # bytes that a file of S3, opened for random access, requests at once


def source_files(location: str, suffix: str | tuple[str, ...]) -> list[str]:
    """Return the URIs of the files at a location outside the root's layout: one file, or all files below a folder.

    Below a folder, files and folders whose names begin with ``.`` or ``_`` are left out: they are hidden or unfinished.

    Args:
        location: A path or any URI that fsspec opens.
        suffix: Required end of file names, such as ``.parquet``, or one of several; capitals do not count.

    Raises:
        NotFoundError: The location does not exist.
    """
    place = _place(location)
    with translated(place):
        found = _files(place)
    if found == [place]:
        return found
    named = sorted(uri for uri in found if uri.lower().endswith(suffix))
    if not named:
        shown = suffix if isinstance(suffix, str) else ", ".join(suffix)
        raise NotFoundError(
            f"{public(location)} must be a file ({shown}) or a folder with such files, but has none. Check the path.",
            uri=public(location),
        )
    return named


def read_source(location: str) -> bytes:
    """Return the bytes of a file outside the root's layout, at a path or any URI that fsspec opens."""
    place = _place(location)
    with translated(place):
        if place.startswith("s3://"):
            return s3.get(place)
        if (path := local_path(place)) is not None:
            return path.read_bytes()
        data = from_source(place, lambda fs, path: fs.cat_file(path))
    if not isinstance(data, bytes):
        raise DataError(f"{public(location)} must be a file, but is {type(data).__name__}. Name a file.")
    return data


def open_source(location: str, *, whole: bool = False) -> IO[bytes]:
    """Open a file for random access, such as reading its footer; its digest cannot be checked then.

    Args:
        location: A path or any URI that fsspec opens.
        whole: Whether all of it will be read: if it is in a remote store, it is first copied to local disk.

    Raises:
        NotFoundError: There is no such file.
        ResourceError: The local disk has no room for a copy.
    """
    place = _place(location)
    with translated(place):
        if (path := local_path(place)) is not None:
            return path.open("rb")
        if whole:
            return _local_copy(place)
        if place.startswith("s3://"):
            return io.BufferedReader(_Ranges(place), _BLOCK)
        file: IO[bytes] = from_source(place, lambda fs, path: fs.open(path, "rb", block_size=_BLOCK))
    return file


def _local_copy(place: str) -> IO[bytes]:
    """Copy a remote file to local disk, piece by piece, and open the copy, which is deleted when it is closed."""
    copy = tempfile.NamedTemporaryFile()  # noqa: SIM115  # closed by the caller
    try:
        if place.startswith("s3://"):
            s3.copy(place, copy)
        else:
            from_source(place, lambda fs, path: fs.get_file(path, copy.name))
    except OSError as problem:
        copy.close()
        if problem.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ResourceError(
            f"The temporary folder {tempfile.gettempdir()} must have room for a copy of {public(place)}, but is full. "
            "Free space there, or name another folder in TMPDIR."
        ) from problem
    copy.seek(0)
    return copy


def source_digest(location: str) -> str:
    """Return the SHA-256 of a file outside the root's layout, reading it piece by piece."""
    place = _place(location)
    with translated(place):
        if place.startswith("s3://"):
            return s3.digest(place)
        with open_source(place) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # the stubs miss IO


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
        with translated(folder), suppress(FileNotFoundError):
            tags = s3.stamps(folder) if folder.startswith("s3://") else from_source(folder, _tags)
            names = files if folder.startswith("s3://") else [_fsspec(location)[1] for location in files]
            stamps |= {file: str(tags[name]) for file, name in zip(files, names, strict=True) if tags.get(name)}
    return stamps


def _tags(fs: Any, path: str) -> dict[str, Any]:
    return {str(info["name"]): info.get("ETag") or info.get("etag") for info in fs.ls(path, detail=True)}


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


def _place(location: str) -> str:
    """Return a location as a URI; raises as ``check`` does."""
    if not check(location):
        return Path(os.path.abspath(os.path.expanduser(location))).as_uri()
    if path := local_path(location):
        return path.as_uri()
    public(location)  # refuses what is no URL
    return location.rstrip("/") if location.startswith("s3://") else location


def _files(place: str) -> list[str]:
    """Return the URI of a file, or those of all files below a folder that are not hidden."""
    if place.startswith("s3://"):
        found = s3.files(place)
    elif (path := local_path(place)) is not None:
        found = [place] if path.is_file() else [Path(name).as_uri() for name in _local_files(str(path))]
    else:
        return from_source(place, lambda fs, path: _remote_files(fs, path, place))
    return [uri for uri in found if not _is_hidden(uri.removeprefix(place))]


def _local_files(folder: str, above: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield all files below a local folder, also through links to folders, but not through a link to a folder above."""
    real = os.path.realpath(folder)
    if real in above or not os.path.isdir(folder):
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _local_files(entry.path, (*above, real))
            elif entry.is_file():
                yield entry.path


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "_")) for part in name.split("/"))


def _remote_files(fs: Any, path: str, location: str) -> list[str]:
    if fs.info(path)["type"] == "file":
        return [location]
    base = path.rstrip("/")
    return [fs.unstrip_protocol(name) for name in fs.find(path) if not _is_hidden(str(name).removeprefix(base))]


def from_source(location: str, read: Callable[[Any, str], T]) -> T:
    """Read from a location outside the root's layout, by fsspec's filesystem and the path there."""
    fs, path = _fsspec(location)
    return retried(urlsplit(public(location)).netloc, lambda: read(fs, path))


def _fsspec(location: str) -> tuple[Any, str]:
    import fsspec

    try:
        if location.startswith(("http://", "https://")):  # a `::` in their paths is no chain
            return fsspec.filesystem("http"), location
        fs, path = fsspec.core.url_to_fs(location)
    except (ImportError, ValueError) as problem:  # an unknown scheme, or its package is missing
        raise InputError(
            f"{public(location)} must be a location that fsspec opens, but: {clean(problem)}. Correct it, or install "
            "the missing package."
        ) from None
    return fs, str(path)


class _Ranges(io.RawIOBase):
    """An object of S3 whose bytes are requested where they are read."""

    def __init__(self, uri: str) -> None:
        self.uri, self.size, self.place = uri, s3.size(uri), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self.size}[whence]
        return self.place

    def readinto(self, buffer: Any) -> int:
        end = min(self.place + len(buffer), self.size)
        if end <= self.place:
            return 0
        with translated(self.uri):
            data = s3.get_range(self.uri, self.place, end)
        buffer[: len(data)] = data
        self.place += len(data)
        return len(data)
