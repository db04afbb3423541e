"""Distillation: registered versions teach a run with their mean probabilities and encoders' outputs on train.

Each teacher reads the run's features if it can, else those that it was trained on, whose train split must hold the same
dialogues: so teachers may have other encoders. The probabilities are those of ``predict``, with each version's
temperature. With balance method ``umt`` each teacher has one modality, and its encoder's outputs are learned, too. All
are stored once, in the order of train, and the run's request holds their digest.

Shape letters in this file:
    N utterances of train     C classes     M modalities     H hidden width
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from ada2i import storage
from ada2i.balance.votes import encodings
from ada2i.config import TrainConfig
from ada2i.data.manifest import FeatureSet, open_features
from ada2i.data.parquet import from_parquet, to_parquet
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
from ada2i.training.task import TeacherOutputs

# A row per utterance: ``dialogue_id``, ``utterance_index``, ``probabilities``, and ``encoding_MODALITY`` if learned.
TARGETS = "teachers.parquet"


def teach(references: Sequence[str], request: RunRequest, run: RunFolder, *, root: str) -> Teaching:
    """Write the teachers' outputs on train into a run's folder, unless the run was started with them.

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
    for place, (_, version) in enumerate(found):
        if version.name in (other.name for _, other in found[:place]):
            raise ConfigError(f"The teachers must differ, but {version.name} is named twice. Name it once.")
    configs = [_check(uri, version, request) for uri, version in found]
    if request.config.learns_encodings:
        _check_encoders(configs, [version for _, version in found], request)
    teachers = tuple(Teacher(name=v.name, weights=v.files["weights.safetensors"].sha256) for _, v in found)
    if storage.exists(run.request_uri):
        before = run.request().teaching
        if before is not None and before.teachers == teachers:
            return before
    features = open_features(request.features.uri)
    train = open_split(features, "train", request.config.model.modalities)
    mean: Floats = np.zeros((int(train.lengths.sum()), len(request.features.labels)), np.float32)
    outputs: dict[Modality, Floats] = {}
    for uri, version in found:
        probabilities, own = _outputs_of(uri, version, features, train, encoders=bool(_encoders(request)))
        mean += probabilities / len(found)
        outputs |= own
    return Teaching(teachers=teachers, targets=put_folder_file(run.uri, TARGETS, _file(train, mean, outputs)))


def teacher_outputs(run_uri: str, request: RunRequest, train: SplitData) -> TeacherOutputs | None:
    """Return the teachers' outputs on train; None without teachers.

    Raises:
        IntegrityError: The file differs from the request's digest.
        DataError: It holds other utterances than train.
    """
    if request.teaching is None:
        return None
    data = get_folder_file(run_uri, TARGETS, request.teaching.targets)
    table, utterances = from_parquet(data), int(train.lengths.sum())
    hidden = request.config.model.hidden_dim
    sizes = {"probabilities": len(request.features.labels)} | {_column(m): hidden for m in _encoders(request)}
    found = {name: _matrix(table, name) for name in sizes}
    ids = np.repeat(np.array(train.dialogue_ids), train.lengths)
    shapes = {name: (utterances, size) for name, size in sizes.items()}
    if table["dialogue_id"].to_pylist() != ids.tolist() or {n: x.shape for n, x in found.items()} != shapes:
        wanted = ", ".join(f"{name} of {size} numbers" for name, size in sizes.items())
        raise DataError(
            f"{storage.join(run_uri, TARGETS)} must hold {wanted} for each of the {utterances} utterances of train, in "
            f"its order, but has {table.num_rows} rows of {', '.join(table.column_names)}. Start a new run.",
            uri=run_uri,
        )
    probabilities, *encodings = map(torch.from_numpy, found.values())
    return TeacherOutputs(probabilities, torch.stack(encodings, dim=1) if encodings else None)


def _encoders(request: RunRequest) -> tuple[Modality, ...]:
    """Return the modalities whose encoders learn from a teacher's."""
    return request.config.model.modalities if request.config.learns_encodings else ()


def _column(modality: Modality) -> str:
    return f"encoding_{modality}"


def _matrix(table: pa.Table, column: str) -> Floats:
    """Return a column of lists of one length as a matrix; an empty one if there is no such column."""
    if column not in table.column_names or not pa.types.is_fixed_size_list(table.schema.field(column).type):
        return np.empty((0, 0), np.float32)
    lists: Any = table[column].combine_chunks()
    values: Floats = lists.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(-1, table.schema.field(column).type.list_size).astype(np.float32)


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
    teacher_of: dict[Modality, str] = {}
    for model, version in zip([config.model for config in configs], versions, strict=True):
        if len(model.modalities) != 1 or model.modalities[0] not in own.modalities:
            raise ConfigError(
                f"With `balance.method=umt` each teacher must be trained on one of {', '.join(own.modalities)} alone, "
                f"but {version.name} is trained on {', '.join(model.modalities)}. Train one with `--modalities`."
            )
        (modality,) = model.modalities
        if other := teacher_of.get(modality):
            raise ConfigError(
                f"With `balance.method=umt` there must be one teacher for each of {', '.join(own.modalities)}, but "
                f"{other} and {version.name} are both trained on {modality}. Replace one of them."
            )
        if model.hidden_dim != own.hidden_dim:
            raise ConfigError(
                f"With `balance.method=umt` each teacher must have the run's `model.hidden_dim`, {own.hidden_dim}, but "
                f"{version.name} has {model.hidden_dim}. Set one of them."
            )
        teacher_of[modality] = version.name


def _outputs_of(
    uri: str, version: Version, features: FeatureSet, train: SplitData, *, encoders: bool
) -> tuple[Floats, dict[Modality, Floats]]:
    """Return a teacher's probabilities, ``(N, C)``, and if wanted its encoders' outputs, ``(N, H)``, in train's order.

    Raises:
        ConfigError: Outputs of encoders are wanted, but it cannot read the run's features.
        DataError: It can read neither these nor its own, or its own hold other dialogues.
    """
    config = load_config(uri, version)
    reads = can_read(version, config, features)
    if encoders and not reads:
        raise ConfigError(
            f"With `balance.method=umt` each teacher must be able to read {features.uri}, but {version.name} was "
            "trained on vectors of other widths or encoders. Name another teacher."
        )
    source: FeatureSet | None = features if reads else own_features(version)
    if source is None:
        raise DataError(
            f"{version.name} must be able to read {features.uri}, but was trained on vectors of other widths or "
            "encoders, and its own features were deleted. Name another teacher.",
            uri=features.uri,
        )
    data = open_split(source, "train", config.model.modalities)
    rows = _rows_of(train, data, version.name, source.uri)
    model = load_model(uri, version)
    chosen = data.in_order(config.training.batch_dialogues).batches()
    batches = (data.batch(dialogues, dialogues) for dialogues in chosen)
    logits: list[Tensor] = []
    outputs: dict[Modality, list[Tensor]] = {m: [] for m in model.modalities if encoders}
    for batch, prediction in predict(model, batches, torch.device("cpu")):
        logits.append(prediction.logits)
        for modality, parts in outputs.items():
            parts.append(encodings(prediction, batch)[modality])
    probabilities: Floats = model.chances(torch.cat(logits)).numpy()
    return probabilities[rows], {m: torch.cat(parts).float().numpy()[rows] for m, parts in outputs.items()}


def _rows_of(train: SplitData, data: SplitData, teacher: str, uri: str) -> Ints:
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


def _file(train: SplitData, probabilities: Floats, outputs: Mapping[Modality, Floats]) -> bytes:
    matrices = {"probabilities": probabilities} | {_column(m): rows for m, rows in outputs.items()}
    lists = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(rows.astype(np.float32).reshape(-1)), rows.shape[1])
        for name, rows in matrices.items()
    }
    ids = np.repeat(np.array(train.dialogue_ids), train.lengths)
    index = np.concatenate([np.arange(length, dtype=np.int32) for length in train.lengths])
    return to_parquet(pa.table({"dialogue_id": ids, "utterance_index": index, **lists}))
