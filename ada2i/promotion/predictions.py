"""Predictions of registered versions, in the form of ``predictions.parquet``."""

from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

from ada2i.config import TrainConfig
from ada2i.data.manifest import FeatureSet
from ada2i.data.parquet import from_parquet
from ada2i.errors import DataError, IntegrityError
from ada2i.inference.reading import can_read
from ada2i.inference.versions import load_config
from ada2i.registry.versions import Version, read_file, version_uri

_ID = "dialogue_id"


def predictions(root: str, version: Version, features: FeatureSet, split: str) -> pa.Table:
    """Return a version's predictions for a split of some features.

    For the test split of its own features these are the ones that were stored at registration. For any other split the
    version is run if it can read the features; if it cannot, the stored ones stand for a test split, and there is no
    row for a gate split.

    Raises:
        IntegrityError: A shard or file differs from its digest.
        DataError: Its weights were written by another version of ada2i.
    """
    own, uri = version.features.fingerprint == features.manifest.fingerprint, version_uri(root, version)
    config = None if own and split == "test" else _config(uri, version)
    if config is not None and (own or can_read(version, config, features)):
        return from_parquet(_run(uri, version, config, features, split))
    stored = from_parquet(read_file(root, version, "predictions.parquet"))
    return stored if split == "test" else stored.slice(0, 0)


def floor_predictions(root: str, version: Version, features: FeatureSet, split: str) -> tuple[str, pa.Table]:
    """Return the modalities of the linear floor of a version's features, and its predictions for a split.

    Raises:
        IntegrityError: A shard differs from its digest.
        DataError: Train or dev has no labelled utterance.
    """
    from ada2i.inference.floor import best_floor, open_for_floor
    from ada2i.inference.predict import predictions_file

    config = _config(version_uri(root, version), version)
    modalities = config.model.modalities if config else tuple(features.manifest.modalities)
    regression = config is not None and config.regression
    train, dev, held = open_for_floor(features, modalities, split, regression=regression)
    floor = best_floor(train, dev, modalities, classes=len(features.manifest.labels))
    return " + ".join(floor.modalities), from_parquet(predictions_file(held, *floor.predict(held)))


def _config(uri: str, version: Version) -> TrainConfig | None:
    """Return a version's config, or None if another version of ada2i wrote it, so the model cannot be run."""
    try:
        return load_config(uri, version)
    except IntegrityError:
        raise
    except DataError:
        return None


def in_common(tables: Collection[pa.Table], keep: Collection[str]) -> list[pa.Table]:
    """Return several versions' predictions for the dialogues in ``keep`` that all tables have, with equal labels.

    Args:
        tables: One table per version.
        keep: Ids of the dialogues that may count.

    Returns:
        Predictions of each version; without rows if the tables have no dialogue in common.
    """
    labels = [_labels(table) for table in tables]
    first = labels[0]
    same = [name for name in keep if name in first and all(found.get(name) == first[name] for found in labels)]
    return [table.filter(pc.is_in(table[_ID], value_set=pa.array(same, pa.string()))) for table in tables]


def dialogues(table: pa.Table) -> int:
    """Return the number of dialogues with predictions."""
    return len(pc.unique(table[_ID]))


def _labels(table: pa.Table) -> dict[str, list[tuple[int, int]]]:
    found: dict[str, list[tuple[int, int]]] = {}
    for name, index, label in zip(*(table[c].to_pylist() for c in (_ID, "utterance_index", "label")), strict=True):
        found.setdefault(name, []).append((index, label))
    return {name: sorted(rows) for name, rows in found.items()}


def _run(uri: str, version: Version, config: TrainConfig, features: FeatureSet, split: str) -> bytes:
    from ada2i.inference.models import load_model
    from ada2i.inference.predict import predict_split, predictions_file
    from ada2i.loader.split_data import open_split

    data = open_split(features, split, config.model.modalities)
    return predictions_file(data, *predict_split(load_model(uri, version), data, config.training.batch_dialogues))
