"""Decides whether a version is kept or deleted: one object, written only if absent, so the decision is unique.

Without this decision, a version could be deleted while an alias is being moved to it.
"""

from ada2i import storage
from ada2i.registry.paths import FATE

KEPT, RETIRED = b'{"fate": "kept"}\n', b'{"fate": "retired"}\n'


def keep(version_uri: str) -> bool:
    """Mark a version as kept, before its first alias; return false if it is being deleted."""
    return _decide(version_uri, KEPT)


def retire(version_uri: str) -> bool:
    """Mark a version for deletion; return false if it has, had or will get an alias."""
    return _decide(version_uri, RETIRED)


def is_retired(version_uri: str) -> bool:
    """Return whether a version is marked for deletion."""
    place = storage.join(version_uri, FATE)
    return storage.exists(place) and storage.get(place) == RETIRED


def _decide(version_uri: str, fate: bytes) -> bool:
    # A crash right after this leaves either a version that is kept for a move that never happened, which is harmless,
    # or a version that is retired but visible, which the next sweep deletes.
    place = storage.join(version_uri, FATE)
    return storage.put_if_absent(place, fate) or storage.get(place) == fate
