"""Whether a run would only repeat what a version of its model was trained on."""

from pydantic import ValidationError

from ada2i.config import TrainConfig
from ada2i.registry.versions import Version, model_name, read_file, versions
from ada2i.store import RunFolder


def repeats(run_uri: str, *, root: str, model: str | None) -> Version | None:
    """Return the newest version of a run's model that has the run's features and config, or None.

    None too where the run is registered: a run that is tried again does not repeat itself.
    Resources do not count: where a run computes does not change what it learns. Neither does code.

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
    return next((v for v in alike if _same(request.config, read_file(root, v, "config.json"))), None)


def _same(config: TrainConfig, stored: bytes) -> bool:
    try:
        other = TrainConfig.model_validate_json(stored)
    except ValidationError:
        return False  # of an older schema
    return config == other.model_copy(update={"resources": config.resources})
