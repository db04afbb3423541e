"""Locations of a model's versions, aliases and runs, and the names of their objects.

`<root>/registry/<model>/` is the model's home; it holds `versions/<number>/`, `aliases/<alias>/<n>.json` and
`runs/<run>.json`.
"""

from ada2i import storage

MANIFEST, CLAIM, FATE = "manifest.json", "claim.json", "fate.json"


def home_uri(root: str, model: str) -> str:
    """Return the home of a model."""
    return storage.join(storage.normalise(root), "registry", model)


def number_uri(home: str, number: int) -> str:
    """Return the folder of a version number, whether it exists or not."""
    return storage.join(home, "versions", str(number))


def numbers(home: str) -> list[int]:
    """Return all version numbers that were ever claimed, lowest first."""
    return numbered(storage.join(home, "versions"))


def numbered(uri: str, suffix: str = "") -> list[int]:
    """Return the numbers that are names of objects or folders under a URI, lowest first."""
    names = (name.removesuffix(suffix) for name in storage.children(uri) if name.endswith(suffix))
    return sorted(int(name) for name in names if name.isdecimal())
