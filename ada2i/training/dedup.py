"""Finds the version that was already trained on a run's features and config."""

from pydantic import ValidationError

from ada2i.config import TrainConfig
from ada2i.records import RunRequest
from ada2i.registry.versions import Version, is_registered, model_name, newest_first, read_file


def repeats(request: RunRequest, *, root: str, model: str | None) -> Version | None:
    """Return the newest version of a run's model that has the run's features and config, or None.

    Returns None, too, if the run itself is registered, so that a retried run is not skipped. Resources are not
    compared, since they do not change what a run learns. Teachers and the caller's own classes are
    compared; the code of ada2i is not.

    Args:
        request: The request of a prepared run.
        root: The storage root.
        model: The model's name; by default the dataset's.
    """
    name = model_name(request.features, model)
    if is_registered(root, name, request.run_id):
        return None
    # Newest first, one at a time: after a night without new data the newest is the match.
    alike = (v for v in newest_first(root, name) if v.features.fingerprint == request.features.fingerprint)
    same_code = (v for v in alike if (v.own_code, v.teachers) == (request.own_code, request.teachers))
    return next((v for v in same_code if _same(request.config, read_file(root, v, "config.json"))), None)


def _same(config: TrainConfig, stored: bytes) -> bool:
    try:
        other = TrainConfig.model_validate_json(stored)
    except ValidationError:
        return False  # it has an older schema
    return config == other.model_copy(update={"resources": config.resources})
