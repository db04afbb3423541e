"""A registered version with tiny random weights, and predictions of it in this process."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save

from ada2i import storage
from ada2i.data import shards
from ada2i.data.manifest import FeatureSet, open_features
from ada2i.importers.demo import write_demo_corpus
from ada2i.jobs.fanout import Call
from ada2i.model.build import build_model
from ada2i.prediction.records import REQUEST, PredictionManifest, PredictionRequest, is_done, result
from ada2i.prediction.request import PredictSpec, prepare
from ada2i.prediction.run import predict
from ada2i.prediction.worker import Worker
from ada2i.records import Calibration, FeatureInfo, FolderManifest, put_folder_file
from ada2i.registry.versions import Version, register
from tests.runs import run_uri
from tests.unit.registry.finished import finished_run
from tests.unit.training.small import tiny_config

Rows = list[dict[str, Any]]


def demo(root: str, monkeypatch: Any, *, rows: int = 60) -> FeatureSet:
    """Write 20 synthetic dialogues, in shards of some rows."""
    monkeypatch.setattr(shards, "SHARD_BYTES", rows * 4 * (32 + 24 + 20))
    return open_features(write_demo_corpus(root, dialogues=20))


def registered(
    root: str,
    features: FeatureInfo,
    preset: str = "corrected",
    *,
    calibration: Calibration | None = None,
    **more: Any,
) -> Version:
    """Register a model with random weights; keywords are dotted fields with __ for dots."""
    config = tiny_config(preset, **more)
    torch.manual_seed(3)
    model = build_model(config, widths=features.widths, classes=len(features.labels))
    for parameter in model.parameters():  # large, so that probabilities differ, and nothing is zero
        torch.nn.init.normal_(parameter, std=0.15)
    run_id = f"run-{preset}"
    made = finished_run(root, run_id)
    tests = tuple(test.model_copy(update={"calibration": calibration}) for test in made.tests)
    made = made.model_copy(update={"config": config, "features": features, "tests": tests})
    best = next(seed for seed in made.seeds if seed.seed == made.best_seed)
    entry = put_folder_file(best.checkpoint_uri, "weights.safetensors", save(dict(model.state_dict())))
    manifest = FolderManifest(files={"weights.safetensors": entry})
    storage.put(storage.join(best.checkpoint_uri, "manifest.json"), manifest.to_json())
    storage.put(storage.join(run_uri(root, run_id), "result.json"), made.to_json())
    return register(made.run_uri, root=root, model="tiny")


class LocalWorkers:
    """One worker, in this process; interrupted after ``after`` parts."""

    def __init__(self, uri: str, request: PredictionRequest, after: int | None = None) -> None:
        self.worker = Worker(uri, request, "cpu")
        self.after = after
        self.reported: list[dict[str, Any]] = []

    def __call__(self, calls: Iterable[Call]) -> Iterator[Any]:
        for method, arguments in reversed(list(calls)):  # in any order
            if method == "predict" and self.after is not None:
                if self.after == 0:
                    raise KeyboardInterrupt("killed")
                self.after -= 1
            yield getattr(self.worker, method)(*arguments)

    def report(self, kind: str, **facts: Any) -> None:
        self.reported.append({"kind": kind, **facts})


def run(root: str, source: str, *, version: str = "tiny", after: int | None = None, **more: Any) -> str:
    """Predict a source; return the prediction's URI."""
    uri = prepare(PredictSpec(version=version, source=source, **more), root=root).uri
    request = PredictionRequest.load(storage.join(uri, REQUEST))
    if not is_done(request.out):
        workers = LocalWorkers(uri, request, after)
        predict(uri, request, workers, report=workers.report, code="abc")
    return uri


def out_of(uri: str) -> str:
    """Return the folder of a prediction's parts."""
    return PredictionRequest.load(storage.join(uri, REQUEST)).out


def table_of(uri: str) -> pa.Table:
    """Return all parts of a prediction."""
    out, manifest = out_of(uri), manifest_of(uri)
    return pa.concat_tables(pq.read_table(pa.BufferReader(storage.get(storage.join(out, n)))) for n in manifest.files)


def manifest_of(uri: str) -> PredictionManifest:
    return result(out_of(uri))


def contents(uri: str) -> dict[str, bytes]:
    """Return parts and manifest, by name."""
    out, manifest = out_of(uri), manifest_of(uri)
    return {name: storage.get(storage.join(out, name)) for name in (*manifest.files, "manifest.json")}


def write_rows(path: Path, features: FeatureSet, *, without: tuple[str, ...] = ()) -> pa.Table:
    """Write a feature set's rows as a table of anyone's making; return it."""
    from ada2i.data.manifest import read_shard

    rows = pa.concat_tables(read_shard(features, entry) for entry in features.manifest.shards)
    table = rows.drop_columns(list(without)).replace_schema_metadata(None)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return table
