"""Which features a registered version can read."""

from ada2i.config import TrainConfig
from ada2i.data.manifest import FeatureSet, open_features
from ada2i.errors import DataError
from ada2i.registry.versions import Version


def can_read(version: Version, config: TrainConfig, features: FeatureSet) -> bool:
    """Return whether features match those that a version was trained on: modalities, widths and encoders."""
    widths, trained_on = features.manifest.widths, own_features(version)
    if any(version.features.widths[m] != widths.get(m) for m in config.model.modalities):
        return False
    if trained_on is None:
        return _same_recipe(version, config, features)
    made, known = features.manifest.modalities, trained_on.manifest.modalities
    return all(m not in known or known[m].encoder == made[m].encoder for m in config.model.modalities)


def _same_recipe(version: Version, config: TrainConfig, features: FeatureSet) -> bool:
    """Return whether the version's own records show that features were extracted by its encoders."""
    trained, made = version.features.recipe, features.info().recipe
    if trained is None or made is None:
        return False
    return all(trained.encoders.get(m, "") == made.encoders.get(m) for m in config.model.modalities)


def own_features(version: Version) -> FeatureSet | None:
    """Return the features that a version was trained on, or None if they were deleted."""
    try:
        return open_features(version.features.uri)
    except DataError:
        return None
