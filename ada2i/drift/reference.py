"""The reference of a version: sums over its training and dev splits, computed once and stored."""

import tempfile
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ada2i import storage
from ada2i.data.parquet import from_parquet, to_parquet
from ada2i.errors import DataError
from ada2i.fast.threads import restored_torch
from ada2i.inference.sums import Columns, Floats
from ada2i.inference.versions import load_config
from ada2i.jobs.fanout import run_here
from ada2i.modalities import MODALITIES
from ada2i.prediction import request as prediction
from ada2i.prediction.records import REQUEST, PredictionRequest
from ada2i.prediction.request import PredictSpec
from ada2i.registry.versions import Version, version_uri
from ada2i.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from ada2i.inference.predict import Dialogues

_MOST_ROWS = 200_000  # utterances of a split that are read: more make no sum noticeably more exact
_LARGEST = 1e100  # whose square is still finite
_MOST_DIALOGUES = 2_000  # of dev, from which windows are drawn


@dataclass(frozen=True)
class Reference:
    """What a version saw when it was trained.

    Attributes:
        columns: What each sum counts.
        train: ``(K,)`` sums over the training split.
        dev: ``(D, K)`` sums of each dialogue of the dev split.
    """

    columns: Columns
    train: Floats
    dev: Floats


def home(root: str, version: Version) -> str:
    """Return the folder of a version's reference and windows."""
    return Store.open(root).drift(version.model, version.number)


def reference_of(root: str, version: Version, code: tuple[str, ...] = ()) -> Reference:
    """Return a version's reference; the first call predicts its training and dev splits, in this process.

    Args:
        root: The storage root.
        version: A registered version.
        code: package.module:Class that it may name for its model.

    Raises:
        InputError: The feature set that it was trained on no longer exists.
        DataError: The stored reference is damaged or that of other weights; the message names the file to delete.
    """
    uri = storage.join(home(root, version), "reference.parquet")
    config = load_config(version_uri(root, version), version)
    widths = {m: version.features.widths[m] for m in MODALITIES if m in config.model.modalities}
    columns = Columns.of(widths, len(version.features.labels), numbers=config.regression)
    if not storage.exists(uri):
        train = split_sums(root, version, "train", code=code)
        dev = split_sums(root, version, "dev", code=code)
        storage.put(uri, _encoded(train.sum(axis=0), dev[:: -(-len(dev) // _MOST_DIALOGUES)], version))
    return _decoded(uri, version, columns)


def split_sums(
    root: str,
    version: Version,
    split: str,
    change: "Callable[[Dialogues], Dialogues]" = lambda dialogues: dialogues,
    *,
    code: tuple[str, ...] = (),
) -> Floats:
    """Return the sums of each dialogue of a split, ``(D, K)``.

    Args:
        root: The storage root.
        version: A registered version.
        split: Of the feature set that it was trained on.
        change: Changes the dialogues before they are predicted.
        code: package.module:Class that the version may name for its model.
    """
    from ada2i.prediction.run import padded_lengths
    from ada2i.prediction.worker import Worker

    with restored_torch(), tempfile.TemporaryDirectory(prefix="ada2i-") as scratch:
        place = f"{version_uri(root, version)}/"
        spec = PredictSpec(version=place, source=version.features.uri, split=split, code=code, local=True)
        job = prediction.prepare(spec, root=scratch)
        request = PredictionRequest.load(storage.join(job.uri, REQUEST), job.request)
        worker = Worker(job.uri, request, "cpu")
        padded = padded_lengths(request, run_here(worker)) if request.attends_to_padding else None
        step = max(1, -(-sum(shard.rows for shard in request.shards) // _MOST_ROWS))
        found = []
        for number in range(0, len(request.shards), step):
            _, dialogues = worker.read(number, None if padded is None else padded[number])
            found.append(worker.infer(change(dialogues))[1])
    return np.concatenate(found)


def _encoded(train: Floats, dev: Floats, version: Version) -> bytes:
    rows = np.concatenate([train[None], dev])
    values = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])
    table = pa.table({"split": ["train"] + ["dev"] * len(dev), "sums": values})
    return to_parquet(table.replace_schema_metadata({"weights": _weights(version)}), compression="zstd")


def _decoded(uri: str, version: Version, columns: Columns) -> Reference:
    rows = np.empty((0, 0))
    with suppress(pa.ArrowException, KeyError, TypeError, ValueError):
        table = from_parquet(storage.get(uri))
        facts = table.schema.metadata or {}
        kind, split = table.schema.field("sums").type, table["split"].to_pylist()
        ours = facts[b"weights"].decode() == _weights(version) and split == ["train"] + ["dev"] * (len(split) - 1)
        if ours and pa.types.is_fixed_size_list(kind) and pa.types.is_float64(kind.value_type):
            rows = np.array(table["sums"].to_pylist(), dtype=np.float64)
    if len(rows) < 2 or not possible(columns, rows):
        raise DataError(
            f"{uri} must be the reference of {version.name}, as this version of ada2i writes it, but is damaged or "
            "another. Delete it: the next command computes it again."
        )
    return Reference(columns, rows[0], rows[1:])


def possible(columns: Columns, rows: Floats) -> bool:
    """Return whether rows can be sums: finite, and no count below zero."""
    if rows.ndim != 2 or rows.shape[1] != columns.size:
        return False
    counts = np.ones(columns.size, np.bool_)
    for name, place in columns.places.items():
        counts[place] = name != "value" and not name.startswith("total.")
    whole = np.isfinite(rows).all() and (np.abs(rows) < _LARGEST).all()
    return bool(whole and (rows[:, counts] >= 0).all() and (rows[:, 0] > 0).all())


def _weights(version: Version) -> str:
    """Return the digest of a version's weights."""
    return version.files["weights.safetensors"].sha256
