"""Copies on this machine of small S3 objects that a listing has just named, by location and ETag.

They lie in a folder that only this user can enter. Each copy starts with its SHA-256 and is used only if it has it;
anything else is read again from S3. The folder may be deleted at any time.
"""

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ada2i.storage import folders

_DIGITS = 64  # of a SHA-256 in hex


def cached(key: str, read: Callable[[], bytes]) -> bytes:
    """Return the copy that has a key; if there is none, or it is damaged, read the object and keep a copy.

    Args:
        key: Location and ETag of the object.
        read: Returns the object's bytes.
    """
    folder = _folder()
    if folder is None:
        return read()
    place = folder / _digest(key.encode())
    with suppress(OSError):
        copy = place.read_bytes()
        if copy[:_DIGITS].decode(errors="replace") == _digest(copy[_DIGITS:]):
            return copy[_DIGITS:]
    data = read()
    with suppress(OSError):  # a full disk makes listings slow, not wrong; a crash leaves no copy, or a partial file
        folders.put(place, _digest(data).encode() + data)
    return data


def _folder() -> Path | None:
    """Return the folder of copies, or None if it cannot be this user's alone."""
    folder = Path(tempfile.gettempdir()) / f"ada2i-objects-{os.getuid()}"
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
            return folder
    return None


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
