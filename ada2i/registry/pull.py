"""Copies versions to local folders: a copy is complete or invisible, and every byte is checked."""

import shutil
import time
import uuid
from contextlib import suppress
from pathlib import Path

from ada2i import storage
from ada2i.errors import InputError
from ada2i.records import get_folder_file
from ada2i.registry.paths import MANIFEST
from ada2i.registry.references import resolve
from ada2i.registry.versions import Version, version_uri

_STALE = 86_400.0  # seconds after which an unfinished copy counts as abandoned


def pull(root: str, reference: str, folder: Path) -> Path:
    """Copy a version's files and manifest to a folder, unless it holds the same version already.

    Args:
        root: The storage root.
        reference: ``MODEL``, ``MODEL@NUMBER`` or ``MODEL@ALIAS``.
        folder: Target; it must not exist, be empty, or hold the same version.

    Returns:
        The folder, as an absolute path.

    Raises:
        IntegrityError: A file differs from its digest; nothing is left behind.
        InputError: The folder holds something else.
        AccessError: The folder may not be written.
    """
    version = resolve(root, reference)
    return copy_version(version_uri(root, version), version, folder)


def copy_version(uri: str, version: Version, folder: Path) -> Path:
    """Copy the files and manifest of the version at a URI to a folder; see ``pull``."""
    folder = folder.expanduser().resolve()
    if folder.exists() and not _is_free(folder):
        _check_same(folder, version)
        return folder
    hidden = f".{folder.name}.partial-"
    _delete_stale(folder.parent, hidden)
    copy = folder.parent / f"{hidden}{uuid.uuid4().hex}"
    try:
        # A kill here leaves a hidden folder; a later pull of the same version deletes it after a day.
        for name, entry in version.files.items():
            storage.put(storage.join(copy.as_uri(), name), get_folder_file(uri, name, entry))
        _copy_manifest(storage.join(uri, MANIFEST), copy)
        _show(copy, folder, version)
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    return folder


def _copy_manifest(uri: str, copy: Path) -> None:
    data = storage.get(uri)
    Version.opened(data, uri)  # it may have been swept in the meantime
    storage.put(storage.join(copy.as_uri(), MANIFEST), data)


def _is_free(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def _show(copy: Path, folder: Path, version: Version) -> None:
    try:
        copy.rename(folder)  # replaces an empty folder only
    except OSError:
        if not folder.exists():
            raise
        _check_same(folder, version)  # another process was faster


def _check_same(folder: Path, version: Version) -> None:
    try:
        same = Version.load(storage.join(folder.as_uri(), MANIFEST)) == version
        for name, entry in version.files.items() if same else ():
            get_folder_file(folder.as_uri(), name, entry)
    except InputError as problem:
        same, found = False, problem.message
    else:
        found = "It holds another version."
    if not same:
        raise InputError(
            f"{folder} must be new, empty or a copy of {version.name}, but is not: {found} "
            "Choose another folder, or delete this one.",
            uri=folder.as_uri(),
        )


def _delete_stale(parent: Path, hidden: str) -> None:
    for path in parent.iterdir() if parent.is_dir() else ():
        with suppress(FileNotFoundError):  # another pull may do the same
            if path.name.startswith(hidden) and time.time() - path.stat().st_mtime > _STALE:
                shutil.rmtree(path, ignore_errors=True)
