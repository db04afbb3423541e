"""Paths and URIs: parsed, joined, and made safe for display."""

import os
import re
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, quote, unquote, urlsplit

from ada2i.errors import InputError

_NAME: Final = r"[A-Za-z][A-Za-z0-9+.-]*"
_URI: Final = re.compile(rf"((?:{_NAME}::)*)({_NAME})://")  # fsspec's chains first, such as `simplecache::`
_ONE_SLASH: Final = re.compile(rf"{_NAME}:/(?!/)|(s3|file|https?):", re.IGNORECASE)
_WEB: Final = ("http", "https")
_LOCAL: Final = "file"
# In a key of S3, `?` and `#` are ordinary characters, but a signed URL must not be mistaken for a key.
_SIGNED: Final = re.compile(
    r"\?(?:[^/]*&)?[\w-]*(?:x-amz|accesskey|sig|token|secret|pass|pw|auth|cred)[\w-]*=.*", re.IGNORECASE | re.DOTALL
)
# The second branch: a password with an unquoted `/`, `?` or `#`, which is no port.
_USER: Final = re.compile(r"(?<=://)(?:[^/?#]*@|[^/?#\[]*:(?!\d*(?:[/?#]|$)).*?@)", re.DOTALL)
_USERS: Final = re.compile(r"(?<=://)(?:[^/?#\s'\"]*@|[^/?#\s'\"\[]*:(?!\d*(?:[/?#\s'\"]|$))[^\s'\"]*?@)")  # in a text
_QUERY: Final = re.compile(r"(https?://[^\s?#'\"<>]+)[?#][^\s'\"<>]*|()\?[^\s'\"<>]*=[^\s'\"<>]*", re.IGNORECASE)


def normalise(location: str) -> str:
    """Return the URI of a location: a path becomes an absolute ``file://`` URI; trailing slashes are removed.

    Raises:
        InputError: It is empty, its scheme is neither ``file`` nor ``s3``, or an S3 URI names no bucket or holds
            credentials.
    """
    scheme = check(location)
    if not scheme:
        return Path(location).expanduser().resolve().as_uri()
    parts, shown = _parts(location), public(location)
    if scheme == _LOCAL and parts.query + parts.fragment:
        raise InputError(f"{shown} must be a folder, but has a `?` or `#`. Write them as %3F and %23.", uri=shown)
    if scheme == _LOCAL and parts.netloc in ("", "localhost"):  # file://data/x would name a host
        return Path(unquote(parts.path)).resolve().as_uri()
    if location.startswith("s3://") and parts.netloc:
        return location.rstrip("/")
    raise InputError(f"{shown} must be a folder, file:///path or s3://bucket/prefix. Correct it.", uri=shown)


def check(location: str) -> str:
    """Return a location's scheme, or nothing for a path.

    Raises:
        InputError: It is empty, has a scheme with one slash, or is an S3 URI with a user or a signature.
    """
    if not location.strip():
        raise InputError("A location must be a path or a URI, but is empty. Name a file, a folder or s3://bucket/key.")
    scheme = scheme_of(location)
    if not scheme and (found := _ONE_SLASH.match(location)):
        name = found[0].partition(":")[0]
        shown = re.sub(r"^([^/]*:/?)[^/]*@", r"\1", clean(location))
        raise InputError(
            f"{shown} must be a path or a URI, but has a scheme without two slashes. Write "
            f"{name}://{'/path' if name == _LOCAL else 'bucket/key'}; for a path, write it with `./` in front.",
            uri=shown,
        )
    if scheme == "s3" and public(location) != location:
        raise InputError(
            f"{public(location)} must be without a user, password or signature, but the location has one. Remove it, "
            "and give credentials by the environment: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE.",
            uri=public(location),
        )
    return scheme


def join(uri: str, *parts: str) -> str:
    """Append path segments to a URI; in a ``file://`` URI they are quoted, so that they are read back unchanged."""
    if scheme_of(uri) == _LOCAL:
        parts = tuple(quote(os.fsencode(part)) for part in parts)
    return "/".join([uri.rstrip("/"), *parts])


def name_of(uri: str) -> str:
    """Return the last segment of a URI, as it was given to ``join``."""
    name = uri.rpartition("/")[2]
    return unquote(name) if scheme_of(uri) == _LOCAL else name


def local_path(uri: str) -> Path | None:
    """Return the path of a ``file://`` URI, or None for other schemes."""
    return Path(unquote(_parts(uri).path)) if scheme_of(uri) == _LOCAL else None


def scheme_of(location: str) -> str:
    """Return a location's scheme in small letters, ``chain`` for a chain of fsspec, or nothing for a path."""
    found = _URI.match(location)
    if found is None:
        return ""
    scheme = found[2].lower()
    return "chain" if found[1] or ("::" in location and scheme not in (_LOCAL, "s3", *_WEB)) else scheme


def is_remote(location: str) -> bool:
    """Return whether a location is a URI with a scheme other than ``file``."""
    return scheme_of(location) not in ("", _LOCAL)


def public(location: str) -> str:
    """Return a location that is safe to show and store: without the user, password and signature that URLs may carry.

    Raises:
        InputError: The text is not a URL.
    """
    scheme = scheme_of(location)
    if scheme in ("", _LOCAL):
        return location
    if scheme == "chain":
        return "::".join(public(part) for part in location.split("::"))
    _parts(location)
    location = _USER.sub("", location, count=1)
    return re.sub(r"[?#].*", "", location, flags=re.DOTALL) if scheme in _WEB else _SIGNED.sub("", location)


def clean(text: object) -> str:
    """Return the text of a foreign error without the users, passwords and signatures of the URLs in it."""
    return _QUERY.sub(r"\1", _USERS.sub("", str(text)))


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
