"""Batch prediction: speed and memory: ``python -m tests.benchmarks.prediction [--rows 100000,1000000] [--json FILE]``.

An unlabelled table of SYNTHETIC features with MELD's widths and dialogue lengths is staged and predicted, by a model
of MELD's published size with random weights. One worker with one thread; the source is deleted at the end. Seconds are
the processor's, which a busy machine changes little. Memory is that of the process which stages the table, and that of
the worker.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ada2i import storage
from ada2i.config import ResourceConfig
from ada2i.data import schema
from ada2i.evaluation.metrics import HEADLINES
from ada2i.jobs.fanout import Call
from ada2i.modalities import Modality
from ada2i.model.build import build_model
from ada2i.prediction.records import REQUEST, PredictionRequest, Shard
from ada2i.prediction.run import predict
from ada2i.prediction.source import Table as Source
from ada2i.prediction.worker import Worker
from ada2i.presets import resolve
from ada2i.records import FeatureInfo, FileEntry, Summary
from ada2i.registry.versions import Version
from ada2i.store import Store
from tests.benchmarks.workload import Figure, finish

WIDTHS: Mapping[Modality, int] = {"text": 768, "audio": 300, "visual": 342}
LABELS = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
_BLOCK = 20_000  # rows that are made and written together


def write_table(path: Path, rows: int) -> None:
    """Write unlabelled utterances, a block at a time; vectors repeat from block to block."""
    random = np.random.RandomState(0)
    vectors = {m: random.standard_normal((_BLOCK, width)).astype(np.float32) for m, width in WIDTHS.items()}
    lengths = np.clip(random.gamma(4.0, 9.6 / 4.0, _BLOCK), 1, 33).astype(int)
    index = np.concatenate([np.arange(length) for length in lengths])[:_BLOCK]
    dialogue = np.cumsum(index == 0)
    writer = None
    for first in range(0, rows, _BLOCK):
        number = min(_BLOCK, rows - first)
        data: dict[str, Any] = {
            "dialogue_id": [f"{first}-{d}" for d in dialogue[:number]],
            "utterance_index": index[:number],
            "speaker": np.where(index[:number] % 2, "A", "B"),
        }
        data |= {
            schema.vector_column(m): schema.pack_vectors(x[:number], np.ones(number, np.bool_))
            for m, x in vectors.items()
        }
        table = pa.table(data)
        writer = writer or pq.ParquetWriter(path, table.schema, compression="none", use_dictionary=False)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def write_version(root: str) -> Version:
    """Write weights and config of a model of MELD's published size; return what a request says of it."""
    import torch
    from safetensors.torch import save

    torch.manual_seed(0)
    config = resolve(preset="corrected", settings="meld", overrides={})
    model = build_model(config, widths=WIDTHS, classes=len(LABELS))
    files = {"weights.safetensors": save(dict(model.state_dict())), "config.json": config.model_dump_json().encode()}
    for name, data in files.items():
        storage.put(storage.join(root, name), data)
    features = FeatureInfo(
        uri="none", dataset="made-up", fingerprint="none", synthetic=True, labels=LABELS, widths=dict(WIDTHS)
    )
    return Version(
        model="made-up",
        number=1,
        created="2026-01-01T00:00:00+00:00",
        run_id="made-up",
        run_uri="",
        preset="corrected",
        settings="meld",
        features=features,
        seed=0,
        seeds=(0,),
        dev_weighted_f1=0.0,
        test_summary=dict.fromkeys(HEADLINES, Summary(mean=0.0, sd=None, values=(0.0,))),
        protocol="",
        files={name: FileEntry(size=len(data), sha256=storage.digest(data)) for name, data in files.items()},
    )


class _Alone:
    """One worker, in this process."""

    def __init__(self, uri: str, request: PredictionRequest) -> None:
        self.worker = Worker(uri, request, "cpu")

    def __call__(self, calls: Iterable[Call]) -> Iterator[Any]:
        """Run tasks, one after the other."""
        return (getattr(self.worker, method)(*arguments) for method, arguments in calls)

    def report(self, kind: str, **facts: Any) -> None:
        """Report nothing."""


def stage(root: str, path: str) -> dict[str, Any]:
    """Check a table and cut it into shards."""
    uri = Store.open(root).prediction("benchmark")
    shards = Source(path, "all").stage(storage.join(uri, "source"), WIDTHS, LABELS, "made-up@1")
    return {"shards": [shard.model_dump() for shard in shards]}


def work(root: str, shards: list[dict[str, Any]]) -> dict[str, Any]:
    """Predict shards."""
    version, uri = write_version(root), Store.open(root).prediction("benchmark")
    request = PredictionRequest(
        run_id="benchmark",
        out=uri,
        version_uri=root,
        version=version,
        source="made up",
        fingerprint="none",
        synthetic=True,
        split="all",
        labels=LABELS,
        modalities=tuple(WIDTHS),
        attends_to_padding=False,
        group=1,
        shards=tuple(Shard.model_validate(shard) for shard in shards),
        batch=512,
        resources=ResourceConfig(workers=1),
    )
    storage.put(storage.join(uri, REQUEST), request.stored())
    alone = _Alone(uri, request)
    return {"utterances": predict(uri, request, alone, report=alone.report, code="benchmark").utterances}


def measured(call: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Run a function in a process of its own; return what it returns, with seconds and the most memory, in MiB."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found: dict[str, Any] = pool.apply(_timed, (call, arguments))
    return found


def _timed(call: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> dict[str, Any]:
    import torch

    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    begun = time.process_time()
    found = call(*arguments)
    seconds = time.process_time() - begun
    return {**found, "seconds": seconds, "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def measure(rows: int) -> list[Figure]:
    """Measure one size."""
    with tempfile.TemporaryDirectory() as folder:
        root, path = Path(folder).as_uri(), Path(folder) / "source.parquet"
        write_table(path, rows)
        staged = measured(stage, root, str(path))
        path.unlink()
        done = measured(work, root, staged["shards"])
    assert done["utterances"] == rows
    size = f"prediction of {rows:,} utterances"
    return [
        Figure(f"{size}: staged", rows / staged["seconds"], "utt/s"),
        Figure(f"{size}: staging, peak memory", staged["mib"], "MiB", 2048, at_most=True),
        Figure(f"{size}: predicted", rows / done["seconds"], "utt/s"),
        Figure(f"{size}: worker, peak memory", done["mib"], "MiB", 2048, at_most=True),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.prediction")
    parser.add_argument("--rows", default="100000,1000000")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    finish(given.json, [figure for rows in given.rows.split(",") for figure in measure(int(rows))])


if __name__ == "__main__":
    main()
