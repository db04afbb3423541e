"""The files of a corpus, listed once, in any store that fsspec opens."""

from collections.abc import Iterable

from ada2i import storage
from ada2i.errors import DataError, NotFoundError
from ada2i.importers.transcripts import repaired


def files_below(location: str) -> tuple[str, ...]:
    """Return the URIs of all files below a folder, sorted, with one listing.

    Args:
        location: A path, or any URI that fsspec opens.

    Raises:
        DataError: The location is empty, the folder does not exist, or it has no files.
    """
    if not location.strip():
        raise DataError("The location of a corpus must be a path or a URI, but is empty. Name the corpus's folder.")
    try:
        return tuple(storage.source_files(location, ""))
    except NotFoundError as problem:
        public = storage.public(location)
        raise DataError(
            f"{public} must be a folder with a corpus, but does not exist or is empty. Check the location.",
            uri=public,
        ) from problem


def path_of(uri: str) -> str:
    """Return the path of a URI in readable form: without the ``%20`` of ``file://`` URIs."""
    return str(storage.local_path(uri) or uri)


def parts_of(uri: str) -> list[str]:
    """Return the folders and the name of a file."""
    return path_of(uri).split("/")


def named(files: Iterable[str], *names: str) -> list[str]:
    """Return the files with one of some names, those nearest to the top folder first."""
    return sorted((uri for uri in files if parts_of(uri)[-1] in names), key=lambda uri: (uri.count("/"), uri))


def read_text(uri: str) -> str:
    """Return the text of a file: decoded as UTF-8, or else as Windows-1252, the encoding of old releases."""
    data = storage.read_source(uri)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return repaired(data.decode("latin-1"))
