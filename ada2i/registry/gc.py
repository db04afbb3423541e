"""Deletes remains that can never become a version and, on request, old versions without aliases."""

from datetime import UTC, datetime

from ada2i import storage
from ada2i.errors import NotFoundError
from ada2i.registry import retention
from ada2i.registry.aliases import aliases, history
from ada2i.registry.paths import FATE, MANIFEST, home_uri, number_uri, numbers
from ada2i.registry.versions import SWEPT, check_model_name, versions
from ada2i.store import Store

DAY = 86_400.0


def sweep_features(root: str, *, older_than_s: float = DAY) -> list[str]:
    """Delete remains of killed imports, which belong to no model; return the URIs of the objects deleted."""
    return storage.delete_partials(storage.join(storage.normalise(root), "features"), older_than_s=older_than_s)


def sweep(root: str, model: str, *, older_than_s: float = DAY, versions_older_than_s: float | None = None) -> list[str]:
    """Delete remains of a model's killed registrations and of killed imports, and, on request, old versions.

    A number without a version is first retired (``SWEPT`` instead of the manifest, written only if absent), so that a
    process that is still writing there takes another number. A version that ever had an alias is kept, and so is
    the newest, to which the model's bare name refers.

    Args:
        root: The storage root.
        model: The model's name.
        older_than_s: Seconds since the last write; younger unfinished registrations are kept.
        versions_older_than_s: Seconds since registration after which a version without alias is deleted; None: never.

    Returns:
        URIs of the objects deleted, in the order of their deletion.

    Raises:
        ConfigError: The model's name is not a safe folder name.
        DataError: Versions were to be deleted, and a manifest or an alias's history is damaged.
    """
    check_model_name(model)
    home = home_uri(root, model)
    if versions_older_than_s is not None:
        for number in _unreferenced(root, model, versions_older_than_s):
            retention.retire(number_uri(home, number))  # a version that got an alias in the meantime is kept
    deleted = storage.delete_partials(home, older_than_s=older_than_s)
    deleted += sweep_features(root, older_than_s=older_than_s)
    for number in numbers(home):
        uri = number_uri(home, number)
        if _is_gone(uri, older_than_s):
            cleared = _clear(uri)
            deleted += cleared
            if cleared:
                storage.delete_folder(Store.open(root).drift(model, number))
    return deleted


def _unreferenced(root: str, model: str, older_than_s: float) -> list[int]:
    referred = {move.number for alias in aliases(root, model) for move in history(root, model, alias)}
    now, found = datetime.now(UTC), versions(root, model)[:-1]
    old = (v.number for v in found if (now - datetime.fromisoformat(v.created)).total_seconds() >= older_than_s)
    return [number for number in old if number not in referred]


def _is_gone(uri: str, older_than_s: float) -> bool:
    """Retire a number unless it has a version; return whether it is retired."""
    place = storage.join(uri, MANIFEST)
    try:
        data = storage.get(place)
    except NotFoundError:
        # If another process completes the version at the same time, one of the two writes wins.
        return storage.age(uri) >= older_than_s and storage.put_if_absent(place, SWEPT)
    if data != SWEPT and retention.is_retired(uri):
        storage.put(place, SWEPT)
        return True
    return data == SWEPT


def _clear(uri: str) -> list[str]:
    # The manifest is already ``SWEPT``: a crash here leaves an invisible folder, which the next sweep deletes.
    # The manifest and the retention record are kept, so that the number is never reused.
    gone = [storage.join(uri, name) for name in storage.children(uri) if name not in (MANIFEST, FATE)]
    storage.delete(*gone)
    return gone
