"""Opens registered versions and pulled copies, and reads their configs; every byte is checked. It imports no torch."""

from pydantic import ValidationError

from ada2i import storage
from ada2i.config import TrainConfig
from ada2i.errors import DataError, NotFoundError
from ada2i.jobs import code
from ada2i.presets import explain
from ada2i.records import get_folder_file
from ada2i.registry.references import resolve
from ada2i.registry.versions import Version, load_version, version_uri

_CONFIG = "config.json"


def open_version(root: str, reference: str) -> tuple[str, Version]:
    """Return the folder of a version and its manifest, after checking every file.

    Args:
        root: The storage root.
        reference: ``MODEL``, ``MODEL@NUMBER`` or ``MODEL@ALIAS``; or the folder of a copy made by ``registry pull``, as
            a URI or a path with a ``/``.

    Raises:
        ConfigError: The reference is malformed.
        NotFoundError: There is no such version.
        IntegrityError: A file differs from the registered one; the message names it.
    """
    if "/" in reference:
        uri = storage.normalise(reference)
        found = load_version(uri)
        if found is None:
            raise NotFoundError(
                f"{uri} must be a copy of a version, but has no manifest.json. Make one with `ada2i registry pull`, or "
                "name a version, such as ada2i-iemocap@champion.",
                uri=uri,
            )
    else:
        found = resolve(root, reference)
        uri = version_uri(root, found)
    for name, entry in found.files.items():
        get_folder_file(uri, name, entry)
    return uri, found


def load_config(uri: str, version: Version) -> TrainConfig:
    """Return the config that a version was trained with.

    Raises:
        IntegrityError: It differs from the registered one.
        DataError: It was written by another version of ada2i.
    """
    try:
        return TrainConfig.model_validate_json(get_folder_file(uri, _CONFIG, version.files[_CONFIG]))
    except ValidationError as problem:
        raise DataError(
            f"{uri}/{_CONFIG} must be a config of this version of ada2i, but: {explain(problem)[0]}. Predict with the "
            "version that trained it; its environment.json names it.",
            uri=uri,
        ) from problem


def check_code(config: TrainConfig, version: Version) -> dict[str, str]:
    """Return the digests of the classes of someone's own that a version's model needs.

    Raises:
        ConfigError: The caller of this process did not name one.
        IntegrityError: Its source here is not the one that the version was trained with.
    """
    return code.check_stored(config.model.own_code, version.own_code, version.name)
