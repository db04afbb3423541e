"""Deletes remains that can never become a version and, on request, unreferenced versions."""

from datetime import UTC, datetime

from ada2i import storage
from ada2i.errors import NotFoundError
from ada2i.registry import retention
from ada2i.registry.aliases import history
from ada2i.registry.paths import FATE, MANIFEST, home_uri, number_uri, numbers
from ada2i.registry.versions import SWEPT, check_model_name, versions

DAY = 86_400.0


def sweep(root: str, model: str, *, older_than_s: float = DAY, versions_older_than_s: float | None = None) -> list[str]:
    """Delete what killed registrations left of a model and, on request, old versions.

    A number without a version is first retired (``SWEPT`` in the manifest's place, written only if absent), so that a
    process that is still writing there takes another number. A version that ever had an alias stays, and so does
    the newest, which the model's bare name refers to.

    Args:
        root: The storage root.
        model: The model's name.
        older_than_s: Seconds since the last write, before which an unfinished registration is left in peace.
        versions_older_than_s: Seconds since its registration after which a version goes; None: never.

    Returns:
        URIs of the objects deleted, in the order of their deletion.

    Raises:
        ConfigError: The model's name is no safe folder.
        DataError: Versions are to be deleted, and a manifest or an alias's history is damaged.
    """
    check_model_name(model)
    home = home_uri(root, model)
    if versions_older_than_s is not None:
        for number in _unreferenced(root, model, versions_older_than_s):
            retention.retire(number_uri(home, number))  # what an alias was given meanwhile stays
    deleted = storage.delete_partials(home, older_than_s=older_than_s)
    for number in numbers(home):
        uri = number_uri(home, number)
        if _is_gone(uri, older_than_s):
            deleted += _clear(uri)
    return deleted


def _unreferenced(root: str, model: str, older_than_s: float) -> list[int]:
    names = storage.children(storage.join(home_uri(root, model), "aliases"))
    referred = {move.number for alias in names for move in history(root, model, alias)}
    now, found = datetime.now(UTC), versions(root, model)[:-1]
    old = (v.number for v in found if (now - datetime.fromisoformat(v.created)).total_seconds() >= older_than_s)
    return [number for number in old if number not in referred]


def _is_gone(uri: str, older_than_s: float) -> bool:
    """Retire a number unless it has a version; return whether it is retired."""
    place = storage.join(uri, MANIFEST)
    try:
        data = storage.get(place)
    except NotFoundError:
        # Who completes the version meanwhile is the winner.
        return storage.age(uri) >= older_than_s and storage.put_if_absent(place, SWEPT)
    if data != SWEPT and retention.is_retired(uri):
        storage.put(place, SWEPT)
        return True
    return data == SWEPT


def _clear(uri: str) -> list[str]:
    # The manifest is ``SWEPT`` by now: a crash in here leaves something invisible, which the next sweep deletes.
    # Manifest and fate stay for good; they keep the number from being given again.
    gone = [storage.join(uri, name) for name in storage.children(uri) if name not in (MANIFEST, FATE)]
    for place in gone:
        storage.delete(place)
    return gone
