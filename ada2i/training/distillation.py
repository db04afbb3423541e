"""Distillation: registered versions teach a run with their mean probabilities and encoders' outputs on train.

Each teacher reads the run's features if it can, else those that it was trained on, whose train split must hold the same
dialogues: so teachers may have other encoders. The probabilities are those of ``predict``, with each version's
temperature. With balance method ``umt`` each teacher has one modality, and its encoder's outputs are learned, too. All
are stored once, in the order of train, and the run's request holds their digest.

Shape letters in this file:
    N utterances of train     C classes     M modalities     H hidden width
"""

import io
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ada2i import storage
from ada2i.balance.votes import encodings
from ada2i.config import TrainConfig
from ada2i.data.manifest import FeatureSet, open_features
from ada2i.errors import ConfigError, DataError
from ada2i.inference.models import load_model
from ada2i.inference.predict import Floats, Ints, predict
from ada2i.inference.reading import can_read, own_features
from ada2i.inference.versions import load_config, open_version
from ada2i.loader.split_data import SplitData, open_split
from ada2i.modalities import Modality
from ada2i.records import RunRequest, Teacher, Teaching, get_folder_file, put_folder_file
from ada2i.registry.versions import Version
from ada2i.store import RunFolder
from ada2i.training.task import Taught

# A row per utterance: ``dialogue_id``, ``utterance_index``, ``probabilities``, and ``encoding_MODALITY`` if learned.
TARGETS = "teachers.parquet"


def teach(references: Sequence[str], request: RunRequest, run: RunFolder, *, root: str) -> Teaching:
    """Write what the teachers say of train into a run's folder, unless the run was started with them.

    Args:
        references: As ``open_version`` takes them.
        request: The run's request.
        run: Its folder.
        root: The storage root.

    Raises:
        ConfigError: A teacher is named twice, has other classes, predicts a number, or has no encoder to learn from.
        NotFoundError: There is no such version.
        DataError: A teacher can read neither the run's features nor its own, or these hold other dialogues.
    """
    found = [open_version(root, reference) for reference in references]
    configs = [_check(uri, version, request) for uri, version in found]
    if request.config.learns_encodings:
        _check_encoders(configs, [version for _, version in found], request)
    for place, (_, version) in enumerate(found):
        if version.name in (other.name for _, other in found[:place]):
            raise ConfigError(f"The teachers must differ, but {version.name} is named twice. Name it once.")
    teachers = tuple(Teacher(name=v.name, weights=v.files["weights.safetensors"].sha256) for _, v in found)
    if storage.exists(run.request_uri):
        before = run.request().teaching
        if before is not None and before.teachers == teachers:
            return before
    features = open_features(request.features.uri)
    train = open_split(features, "train", request.config.model.modalities)
    lessons = [_lesson(uri, version, features, train) for uri, version in found]
    mean = np.asarray(sum(lesson.probabilities for lesson in lessons) / len(lessons))
    learned = {m: lesson.encodings[m] for lesson in lessons for m in lesson.encodings} if _encoders(request) else {}
    return Teaching(teachers=teachers, targets=put_folder_file(run.uri, TARGETS, _file(train, mean, learned)))


def taught_rows(run_uri: str, request: RunRequest, train: SplitData) -> Taught | None:
    """Return what the teachers say of train; None without teachers.

    Raises:
        IntegrityError: The file differs from the request's digest.
        DataError: It holds other utterances than train.
    """
    if request.teaching is None:
        return None
    data = get_folder_file(run_uri, TARGETS, request.teaching.targets)
    table, classes = pq.read_table(io.BytesIO(data)), len(request.features.labels)
    ids = np.repeat(np.array(train.dialogue_ids), train.lengths)
    columns = ["probabilities", *(_column(m) for m in _encoders(request))]
    sizes = [classes, *(request.config.model.hidden_dim for _ in columns[1:])]
    shapes = [(len(ids), size) for size in sizes]
    found = [_rows(table, column) for column in columns]
    if table["dialogue_id"].to_pylist() != ids.tolist() or [rows.shape for rows in found] != shapes:
        raise DataError(
            f"{storage.join(run_uri, TARGETS)} must hold {', '.join(columns)} of {', '.join(map(str, sizes))} numbers "
            "for each utterance of train in its order, but does not. Start a new run.",
            uri=run_uri,
        )
    probabilities, *encodings = map(torch.from_numpy, found)
    return Taught(probabilities, torch.stack(encodings, dim=1) if encodings else None)


def _encoders(request: RunRequest) -> tuple[Modality, ...]:
    """Return the modalities whose encoders learn from a teacher's."""
    return request.config.model.modalities if request.config.learns_encodings else ()


def _column(modality: Modality) -> str:
    return f"encoding_{modality}"


def _rows(table: pa.Table, column: str) -> Floats:
    """Return a column of lists of one length as a matrix; an empty one if the column is missing."""
    if column not in table.column_names:
        return np.empty((0, 0), np.float32)
    return np.array(table[column].to_pylist(), np.float32)


def _check(uri: str, version: Version, request: RunRequest) -> TrainConfig:
    if version.features.labels != request.features.labels:
        raise ConfigError(
            f"A teacher must have the features' classes, {', '.join(request.features.labels)}, in this order, but "
            f"{version.name} has {', '.join(version.features.labels)}. Name another."
        )
    config = load_config(uri, version)
    if config.regression:
        raise ConfigError(f"A teacher must predict probabilities, but {version.name} predicts a number. Name another.")
    return config


def _check_encoders(configs: Sequence[TrainConfig], versions: Sequence[Version], request: RunRequest) -> None:
    """Check that there is one teacher for each modality, trained on it alone, with an encoder of the run's width."""
    own = request.config.model
    left = set(own.modalities)
    for model, version in zip([config.model for config in configs], versions, strict=True):
        if len(model.modalities) != 1 or model.modalities[0] not in left:
            raise ConfigError(
                f"With `balance.method=umt` there must be one teacher for each of {', '.join(own.modalities)}, trained "
                f"on it alone, but {version.name} is trained on {', '.join(model.modalities)}. Train one with "
                "`--modalities`, and name each once."
            )
        if model.hidden_dim != own.hidden_dim:
            raise ConfigError(
                f"With `balance.method=umt` each teacher must have the run's `model.hidden_dim`, {own.hidden_dim}, but "
                f"{version.name} has {model.hidden_dim}. Set one of them."
            )
        left -= set(model.modalities)


class _Lesson(NamedTuple):
    """What a teacher says of train, in its order: ``(N, C)`` probabilities, and its encoders' outputs, ``(N, H)``."""

    probabilities: Floats
    encodings: dict[Modality, Floats]


def _lesson(uri: str, version: Version, features: FeatureSet, train: SplitData) -> _Lesson:
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
    chosen = data.in_order(config.training.batch_dialogues).batches()
    batches = (data.batch(dialogues, dialogues) for dialogues in chosen)
    pairs = [(p.logits, encodings(p, batch)) for batch, p in predict(model, batches, torch.device("cpu"))]
    rows = _in_order_of(train, data, version.name, source.uri)
    return _Lesson(
        model.chances(torch.cat([logits for logits, _ in pairs])).numpy()[rows],
        {m: torch.cat([encoded[m] for _, encoded in pairs]).numpy()[rows] for m in model.modalities},
    )


def _in_order_of(train: SplitData, data: SplitData, teacher: str, uri: str) -> Ints:
    """Return the rows of a teacher's train split in the order of the student's.

    Raises:
        DataError: It lacks a dialogue, or has another length of one.
    """
    edges = [0, *accumulate(data.lengths.tolist())]
    places = {name: range(*edges[d : d + 2]) for d, name in enumerate(np.array(data.dialogue_ids).tolist())}
    rows: list[int] = []
    for name, length in zip(np.array(train.dialogue_ids).tolist(), train.lengths.tolist(), strict=True):
        part = places.get(name, range(0))
        if len(part) != length:
            raise DataError(
                f"{uri}, which {teacher} reads, must hold dialogue {name} with {length} utterances in train, but holds "
                f"{len(part)} of it there. Name another teacher.",
                uri=uri,
            )
        rows += part
    return np.array(rows, np.int64)


def _file(train: SplitData, probabilities: Floats, learned: Mapping[Modality, Floats]) -> bytes:
    matrices = {"probabilities": probabilities} | {_column(m): rows for m, rows in learned.items()}
    lists = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(rows.astype(np.float32).reshape(-1)), rows.shape[1])
        for name, rows in matrices.items()
    }
    ids = np.repeat(np.array(train.dialogue_ids), train.lengths)
    index = np.concatenate([np.arange(length, dtype=np.int32) for length in train.lengths])
    buffer = io.BytesIO()
    pq.write_table(pa.table({"dialogue_id": ids, "utterance_index": index, **lists}), buffer)
    return buffer.getvalue()
