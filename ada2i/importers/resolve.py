"""Finds the feature set at a location; a table is imported first."""

from collections.abc import Sequence
from pathlib import Path

from ada2i.data.manifest import FeatureSet, is_feature_set, open_features, require_modalities
from ada2i.display import similar
from ada2i.errors import DataError
from ada2i.importers.demo import write_demo_corpus
from ada2i.importers.folds import fold_sets
from ada2i.importers.table import import_table
from ada2i.modalities import Modality

DEMO = "demo"


def resolve_features(
    location: str, root: str, *, needs: Sequence[Modality] = (), dataset: str | None = None
) -> FeatureSet:
    """Return the feature set at a location; the same content is written once, however often this is called.

    Args:
        location: ``demo``, the folder of a feature set, or a table: a file or a folder of files.
        root: The storage root, where the demo corpus and imported tables go.
        needs: Modalities that the features must hold.
        dataset: Name of their dataset; None: their own.

    Raises:
        DataError: The location holds none of these, or an invalid one.
    """
    if location == DEMO:
        location = write_demo_corpus(root)
    if (suggestion := similar(location, (DEMO, "demo-media"))) and not Path(location).exists():
        raise DataError(f"{location} must be a feature set or a table, but does not exist.{suggestion}", uri=location)
    if dataset is not None or not is_feature_set(location):
        return open_features(import_table(location, root, needs=needs, dataset=dataset))
    features = open_features(location)
    require_modalities(features.uri, held=features.manifest.widths, needs=needs)
    return features


def resolve_folds(
    location: str, root: str, *, folds: int, leave_out: str, needs: Sequence[Modality] = ()
) -> list[FeatureSet]:
    """Return one feature set per fold of a location's dialogues; see ``folds.fold_sets``."""
    place = write_demo_corpus(root) if location == DEMO else location
    return [open_features(uri) for uri in fold_sets(place, root, folds=folds, leave_out=leave_out, needs=needs)]
