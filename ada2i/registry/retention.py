"""Whether a version stays for good or goes: one object, written only if absent, so it cannot come out both ways.

Without it, a version could be deleted while an alias is being moved to it.
"""

from ada2i import storage
from ada2i.registry.paths import FATE

KEPT, RETIRED = b'{"fate": "kept"}\n', b'{"fate": "retired"}\n'


def keep(version_uri: str) -> bool:
    """Mark a version as kept, before its first alias; return false if it is being deleted."""
    return _settle(version_uri, KEPT)


def retire(version_uri: str) -> bool:
    """Settle that a version goes; false where an alias has, had or was to have it."""
    return _settle(version_uri, RETIRED)


def is_retired(version_uri: str) -> bool:
    """Return whether a version is to go."""
    place = storage.join(version_uri, FATE)
    return storage.exists(place) and storage.get(place) == RETIRED


def _settle(version_uri: str, fate: bytes) -> bool:
    # A crash right behind leaves a version that was kept for a move that never came: it stays, and that is all; or one
    # that is retired but visible, which the next sweep deletes.
    place = storage.join(version_uri, FATE)
    return storage.put_if_absent(place, fate) or storage.get(place) == fate
