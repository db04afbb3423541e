"""Paths and URIs: parsed, joined, and made safe for display."""

import re
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from ada2i.errors import InputError


def normalise(location: str) -> str:
    """Return the URI of a location: a path becomes an absolute ``file://`` URI; trailing slashes are removed.

    Raises:
        InputError: The scheme is neither ``file`` nor ``s3``, or an S3 URI names no bucket.
    """
    if not location.strip():
        raise InputError("A location must be a path or a URI, but is empty. Name a folder or s3://bucket/prefix.")
    scheme = location.partition("://")[0] if "://" in location else ""
    if not scheme:
        return Path(location).expanduser().resolve().as_uri()
    parts = _parts(location)
    if scheme == "file" and parts.query + parts.fragment:
        raise InputError(f"{location} must be a folder, but has a `?` or `#`. Write them as %3F and %23.", uri=location)
    if scheme == "file" and parts.netloc in ("", "localhost"):  # file://data/x would name a host
        return Path(unquote(parts.path)).resolve().as_uri()
    if scheme == "s3" and parts.netloc:
        return location.rstrip("/")
    shown = public(location)
    raise InputError(f"{shown} must be a folder, file:///path or s3://bucket/prefix. Correct it.", uri=shown)


def join(uri: str, *parts: str) -> str:
    """Append path segments to a URI."""
    return "/".join([uri.rstrip("/"), *parts])


def local_path(uri: str) -> Path | None:
    """Return the path of a ``file://`` URI, or None for other schemes."""
    return Path(unquote(_parts(uri).path)) if uri.startswith("file://") else None


def is_remote(location: str) -> bool:
    """Return whether a location is a URI with a scheme other than ``file``."""
    return "://" in location and not location.startswith("file://")


def public(location: str) -> str:
    """Return a location that is safe to show and store: without the user, password and signature that URLs may carry.

    Raises:
        InputError: The text is not a URL.
    """
    if not is_remote(location):
        return location
    parts = _parts(location)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _parts(uri: str) -> SplitResult:
    try:
        return urlsplit(uri)
    except ValueError:
        shown = re.sub(r"(?<=://)[^/?#]*@|[?#].*", "", uri, flags=re.DOTALL)
        raise InputError(
            f"{shown} must be a path or a URI, but its host is invalid: square brackets, "
            "for example, may only enclose an IPv6 address. Correct it; in a user or password, write them as "
            "%5B and %5D.",
            uri=shown,
        ) from None  # the cause quotes the password
