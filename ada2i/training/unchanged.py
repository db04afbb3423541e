"""Whether a run would only repeat what the newest version of its model was trained on."""

from pydantic import ValidationError

from ada2i import storage
from ada2i.config import TrainConfig
from ada2i.errors import NotFoundError
from ada2i.records import RunRequest
from ada2i.registry.versions import Version, find, model_name, read_file


def repeats(run_uri: str, *, root: str, model: str | None) -> Version | None:
    """Return the newest version of a run's model, if the run has its features and config; else None.

    Resources do not count: where a run computes does not change what it learns. Neither does code.

    Args:
        run_uri: A prepared run.
        root: The storage root.
        model: The model's name; by default the dataset's.
    """
    request = RunRequest.load(storage.join(run_uri, "request.json"))
    try:
        newest = find(root, model_name(request.features, model))
    except NotFoundError:
        return None
    if newest.run_id == request.run_id or newest.features.fingerprint != request.features.fingerprint:
        return None  # a run that is tried again does not repeat itself
    return newest if _same(request.config, read_file(root, newest, "config.json")) else None


def _same(config: TrainConfig, stored: bytes) -> bool:
    try:
        other = TrainConfig.model_validate_json(stored)
    except ValidationError:
        return False  # of an older schema
    return config == other.model_copy(update={"resources": config.resources})
