"""Finds the version that was already trained on a run's features and config."""

from pydantic import ValidationError

from ada2i.config import TrainConfig
from ada2i.registry.versions import Version, model_name, read_file, versions
from ada2i.store import RunFolder


def repeats(run_uri: str, *, root: str, model: str | None) -> Version | None:
    """Return the newest version of a run's model that has the run's features and config, or None.

    Returns None, too, if the run itself is registered, so that a retried run is not skipped. Resources are not
    compared, since they do not change what a run learns. Of code, only classes of the caller's own are compared.

    Args:
        run_uri: A prepared run.
        root: The storage root.
        model: The model's name; by default the dataset's.
    """
    request = RunFolder(run_uri).request()
    known = versions(root, model_name(request.features, model))
    if any(version.run_id == request.run_id for version in known):
        return None
    alike = (v for v in reversed(known) if v.features.fingerprint == request.features.fingerprint)
    same_code = (v for v in alike if v.own_code == request.own_code)
    return next((v for v in same_code if _same(request.config, read_file(root, v, "config.json"))), None)


def _same(config: TrainConfig, stored: bytes) -> bool:
    try:
        other = TrainConfig.model_validate_json(stored)
    except ValidationError:
        return False  # it has an older schema
    return config == other.model_copy(update={"resources": config.resources})
