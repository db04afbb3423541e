"""Weights on disk: folders inside installed packages, and digests of files."""

import hashlib
import importlib.util
from collections.abc import Iterable
from pathlib import Path


def package_folder(name: str) -> Path:
    """Return the folder of an installed package, without importing it.

    Raises:
        ModuleNotFoundError: It is not installed.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return Path(spec.origin).parent


def files_digest(files: Iterable[Path]) -> str:
    """Return one SHA-256 over some files' names and contents, independent of their order."""
    total = hashlib.sha256()
    for path in sorted(files, key=lambda path: path.name):
        with path.open("rb") as file:
            total.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()
