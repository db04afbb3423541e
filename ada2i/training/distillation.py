"""Distillation: registered versions teach a run with their mean probabilities on train.

Each teacher reads the run's features if it can, else those that it was trained on, whose train split must hold the same
dialogues: so teachers may have other encoders. The probabilities are those of ``predict``, with each version's
temperature. They are stored once, in the order of train, and the run's request holds their digest.

Shape letters in this file:
    N utterances of train     C classes
"""

import io
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from ada2i import storage
from ada2i.data.manifest import FeatureSet, open_features
from ada2i.errors import ConfigError, DataError
from ada2i.inference.models import load_model
from ada2i.inference.predict import Floats, predict_logits
from ada2i.inference.reading import can_read, own_features
from ada2i.inference.versions import load_config, open_version
from ada2i.loader.split_data import SplitData, open_split
from ada2i.records import RunRequest, Teacher, Teaching, get_folder_file, put_folder_file
from ada2i.registry.versions import Version
from ada2i.store import RunFolder

TARGETS = "teachers.parquet"  # columns ``dialogue_id``, ``utterance_index``, ``probabilities``: a row per utterance


def teach(references: Sequence[str], request: RunRequest, run: RunFolder, *, root: str) -> Teaching:
    """Write the teachers' mean probabilities into a run's folder, unless the run was started with them.

    Args:
        references: As ``open_version`` takes them.
        request: The run's request.
        run: Its folder.
        root: The storage root.

    Raises:
        ConfigError: A teacher is named twice, has other classes, or predicts a number.
        NotFoundError: There is no such version.
        DataError: A teacher can read neither the run's features nor its own, or these hold other dialogues.
    """
    found = [open_version(root, reference) for reference in references]
    for place, (uri, version) in enumerate(found):
        _check(uri, version, request)
        if version.name in (other.name for _, other in found[:place]):
            raise ConfigError(f"The teachers must differ, but {version.name} is named twice. Name it once.")
    teachers = tuple(Teacher(name=v.name, weights=v.files["weights.safetensors"].sha256) for _, v in found)
    if storage.exists(run.request_uri):
        before = run.request().teaching
        if before is not None and before.teachers == teachers:
            return before
    features = open_features(request.features.uri)
    train = open_split(features, "train", request.config.model.modalities)
    mean = sum(_probabilities(uri, version, features, train) for uri, version in found) / len(found)
    return Teaching(teachers=teachers, targets=put_folder_file(run.uri, TARGETS, _file(train, np.asarray(mean))))


def taught_rows(run_uri: str, request: RunRequest, train: SplitData) -> Tensor | None:
    """Return the teachers' mean probabilities, ``(N, C)`` float32 in the order of train; None without teachers.

    Raises:
        IntegrityError: The file differs from the request's digest.
        DataError: It holds other utterances than train.
    """
    if request.teaching is None:
        return None
    data = get_folder_file(run_uri, TARGETS, request.teaching.targets)
    table, classes = pq.read_table(io.BytesIO(data)), len(request.features.labels)
    ids = np.repeat(np.array(train.dialogue_ids), train.lengths)
    rows = np.array(table["probabilities"].to_pylist(), np.float32)  # (N, C)
    if table["dialogue_id"].to_pylist() != ids.tolist() or rows.shape != (len(ids), classes):
        raise DataError(
            f"{storage.join(run_uri, TARGETS)} must hold {classes} probabilities for each utterance of train in its "
            "order, but does not. Start a new run.",
            uri=run_uri,
        )
    return torch.from_numpy(rows)


def _check(uri: str, version: Version, request: RunRequest) -> None:
    if version.features.labels != request.features.labels:
        raise ConfigError(
            f"A teacher must have the features' classes, {', '.join(request.features.labels)}, in this order, but "
            f"{version.name} has {', '.join(version.features.labels)}. Name another."
        )
    if load_config(uri, version).regression:
        raise ConfigError(f"A teacher must predict probabilities, but {version.name} predicts a number. Name another.")


def _probabilities(uri: str, version: Version, features: FeatureSet, train: SplitData) -> Floats:
    """Return a teacher's probabilities, ``(N, C)`` in the order of train."""
    config = load_config(uri, version)
    source: FeatureSet | None = features if can_read(version, config, features) else own_features(version)
    if source is None:
        raise DataError(
            f"{version.name} must be able to read {features.uri}, but was trained on vectors of other widths or "
            "encoders, and its own features were deleted. Name another teacher.",
            uri=features.uri,
        )
    data = open_split(source, "train", config.model.modalities)
    model = load_model(uri, version)
    found: Floats = model.chances(predict_logits(model, data, config.training.batch_dialogues)[1]).numpy()
    edges = [0, *accumulate(data.lengths.tolist())]
    places = {name: slice(*edges[d : d + 2]) for d, name in enumerate(np.array(data.dialogue_ids).tolist())}
    parts = []
    for name, length in zip(np.array(train.dialogue_ids).tolist(), train.lengths.tolist(), strict=True):
        part = found[places.get(name, slice(0, 0))]
        if len(part) != length:
            raise DataError(
                f"{source.uri}, which {version.name} reads, must hold dialogue {name} with {length} utterances in "
                f"train, but holds {len(part)} of it there. Name another teacher.",
                uri=source.uri,
            )
        parts.append(part)
    return np.concatenate(parts)


def _file(train: SplitData, probabilities: Floats) -> bytes:
    table = pa.table(
        {
            "dialogue_id": np.repeat(np.array(train.dialogue_ids), train.lengths),
            "utterance_index": np.concatenate([np.arange(length, dtype=np.int32) for length in train.lengths]),
            "probabilities": pa.FixedSizeListArray.from_arrays(
                pa.array(probabilities.astype(np.float32).reshape(-1)), probabilities.shape[1]
            ),
        }
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()
