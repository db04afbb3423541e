"""Objects in folders: files are complete or absent, even if the writer is killed."""

import errno
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_PARTIAL: Final = ".partial-"  # prefix of files that a killed write may leave; never listed


def put(path: Path, data: bytes) -> None:
    """Write a file; an existing one is replaced."""
    with _partial_file(path, data) as partial:
        partial.replace(path)
        _sync_folder(path.parent)


def put_if_absent(path: Path, data: bytes) -> bool:
    """Write a file unless it exists; return whether this call created it."""
    with _partial_file(path, data) as partial:
        try:
            os.link(partial, path)
        except FileExistsError:
            return False
        _sync_folder(path.parent)
        return True


def children(path: Path) -> list[str]:
    """Return the names of the files and folders directly in a folder, sorted."""
    return sorted(p.name for p in path.iterdir() if not p.name.startswith(_PARTIAL)) if path.is_dir() else []


def objects(folder: Path) -> dict[str, str]:
    """Return a stamp of each file of a folder, at any depth, by its relative path."""
    found = {}
    for path in _files(folder):
        with suppress(FileNotFoundError):  # deleted in between
            stat = path.stat()
            found[path.relative_to(folder).as_posix()] = f"{stat.st_ino}-{stat.st_mtime_ns}-{stat.st_size}"
    return found


def newest(folder: Path) -> float:
    """Return when the newest file of a folder was written, in seconds since the epoch, or 0 if there is no file."""
    return max(map(_written, _files(folder)), default=0.0)


def delete_folder(folder: Path) -> None:
    """Delete a folder, if it exists, with all objects in it, also those that are written meanwhile."""
    while folder.exists():
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:  # another process deletes it, too
            continue
        except OSError as problem:
            if problem.errno != errno.ENOTEMPTY:
                raise


def delete_partials(folder: Path, *, older_than_s: float) -> list[Path]:
    """Delete temporary files that killed writes left in a folder, if they are old enough; return their paths."""
    deleted = []
    for partial in sorted(found for found in _files(folder) if found.name.startswith(_PARTIAL)):
        if time.time() - _written(partial) >= older_than_s:
            partial.unlink(missing_ok=True)
            deleted.append(partial)
    return deleted


@contextmanager
def _partial_file(path: Path, data: bytes) -> Iterator[Path]:
    # A kill here leaves a `.partial-*` file. It is never listed or read; it is deleted with its folder, or
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
    """Return the files of a folder, at any depth; folders that are deleted in between are skipped."""
    return (Path(home, name) for home, _, names in os.walk(folder) for name in names)


def _written(path: Path) -> float:
    """Return when a file was written, in seconds since the epoch; 0 for folders and for deleted files."""
    with suppress(FileNotFoundError):
        return path.stat().st_mtime if path.is_file() else 0.0
    return 0.0


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # not every filesystem can sync folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
