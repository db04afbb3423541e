"""Locations of a model's versions, aliases and runs, and the names of their objects.

`<root>/registry/<model>/` is the model's home; it holds `versions/<number>/`, `aliases/<alias>/<n>.json` and
`runs/<run>.json`. Other names there, such as those that a file manager writes, are passed over; `verify` reports them.
"""

import re
from itertools import count

from ada2i import storage
from ada2i.errors import IntegrityError

MANIFEST, CLAIM, FATE = "manifest.json", "claim.json", "fate.json"
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_VERSION = re.compile(r"/registry/([^/]+)/versions/([1-9][0-9]{0,8})$")


def home_uri(root: str, model: str) -> str:
    """Return the home of a model."""
    return storage.join(storage.normalise(root), "registry", model)


def number_uri(home: str, number: int) -> str:
    """Return the folder of a version number, whether it exists or not."""
    return storage.join(home, "versions", str(number))


def place_of(uri: str) -> tuple[str, int] | None:
    """Return the model and number of a folder of versions; None if the folder lies elsewhere."""
    found = _VERSION.search(uri)
    return (found[1], int(found[2])) if found else None


def numbers(home: str) -> list[int]:
    """Return all version numbers that were ever claimed, lowest first."""
    return numbered(storage.join(home, "versions"))


def number_of(name: str) -> int | None:
    """Return the number that a name is, from 1 and with at most 9 digits, or None."""
    return int(name) if _NUMBER.fullmatch(name) else None


def numbered(uri: str, suffix: str = "") -> list[int]:
    """Return the numbers that are names of objects or folders under a URI, lowest first."""
    names = (name.removesuffix(suffix) for name in storage.children(uri) if name.endswith(suffix))
    return sorted(number for name in names if (number := number_of(name)) is not None)


def sequence(uri: str) -> dict[str, str]:
    """Return the URIs of the objects `1.json`, `2.json`... under a URI, after checking that none is missing.

    Returns:
        Their stamps by URI, for ``read``: these objects are never replaced.

    Raises:
        IntegrityError: There is a later one than the first one that is missing.
    """
    stamps = storage.objects(uri)
    left = {n for name in stamps if name.endswith(".json") and (n := number_of(name.removesuffix(".json")))}
    places = dict[str, str]()
    for n in count(1):
        if not left:
            break
        place = storage.join(uri, f"{n}.json")
        if n not in left and not storage.exists(place):  # a listing may miss objects that are written at the same time
            raise IntegrityError(
                f"{uri} must hold every record up to {max(left)}.json, but lacks {n}.json. Restore it.", uri=place
            )
        left.discard(n)
        places[place] = stamps.get(f"{n}.json", "")
    return places
