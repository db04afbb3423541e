"""Memory, speed and disk of streamed training: ``python -m tests.benchmarks.streaming [--json FILE] [--rows N ...]``.

Synthetic features of MELD's widths and dialogue lengths, in shards of the usual size, are written to a folder for
temporary files: 5.6 kB a row. Up to a million rows all shards differ; of a larger set, each further million are hard
links to the shards of the first, under names and manifest entries of their own, so that it costs no more disk. The
loader knows nothing of that and decodes each of them, but for the sums of the statistics, which are kept by digest.

Each size has a fresh process, which opens the split, reads the statistics, passes over one epoch without computing,
and then trains for some steps, with one thread. ``RssAnon`` is memory of the process's own; ``VmHWM``, its peak by the
kernel's account, has the mapped pages of decoded files in it too.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from ada2i import storage
from ada2i.balance import make_balancer
from ada2i.batch import DialogueBatch
from ada2i.data import schema, shards
from ada2i.data.entries import ShardEntry
from ada2i.data.manifest import MANIFEST, FeatureSet, Manifest, ModalityInfo, SplitInfo, open_features
from ada2i.loader.order import share
from ada2i.loader.split_data import SplitData, open_split
from ada2i.modalities import MODALITIES
from ada2i.model.build import build_model
from ada2i.presets import resolve
from ada2i.training.status import StepKey
from ada2i.training.step import train_step
from ada2i.training.update import make_optimizer
from tests.benchmarks.workload import WORKLOADS, Figure, finish

ROWS = (1_000_000, 10_000_000)
STEPS = 200
_LINKED = 1_000_000  # rows from which on shards are linked
_SAMPLE_S = 0.1
_MELD = WORKLOADS["meld"]
MEAN, LONGEST, CLASSES, WIDTHS = _MELD.mean_length, _MELD.longest, _MELD.classes, _MELD.widths


def write_set(root: Path, rows: int) -> FeatureSet:
    """Write a feature set of about the given number of utterances, all of train."""
    per_shard = shards.SHARD_BYTES // (4 * sum(WIDTHS.values()))
    entries: list[ShardEntry] = []
    distinct = -(-min(rows, _LINKED) // per_shard)
    for number in range(-(-rows // per_shard)):
        name = f"part-{number:05d}.parquet"
        if number < distinct:
            entries.append(_write_shard(root / name, number, per_shard))
        else:
            like = entries[number % distinct]
            os.link(root / like.name, root / name)
            entries.append(like.model_copy(update={"name": name}))
    manifest = Manifest(
        dataset="streaming",
        synthetic=True,
        fingerprint=f"{rows:032d}",
        labels=tuple(f"class {number}" for number in range(CLASSES)),
        modalities={m: ModalityInfo(width=WIDTHS[m], encoder="random") for m in MODALITIES},
        splits={"train": _split_info(entries)},
        dev_rule=None,
        source="random",
        shards=tuple(entries),
    )
    (root / MANIFEST).write_bytes(manifest.to_json())
    return open_features(root.as_uri())


def _split_info(entries: list[ShardEntry]) -> SplitInfo:
    rows = sum(entry.rows for entry in entries)
    return SplitInfo(
        dialogues=sum(entry.dialogues for entry in entries), utterances=rows, class_counts=(rows,) * CLASSES
    )


def _write_shard(path: Path, number: int, rows: int) -> ShardEntry:
    random = np.random.default_rng(number)
    lengths = np.clip(random.gamma(4.0, MEAN / 4.0, rows), 1, LONGEST).astype(int)
    lengths = lengths[: int(np.searchsorted(np.cumsum(lengths), rows))]
    dialogue = np.repeat(np.arange(len(lengths)), lengths)
    index = np.arange(len(dialogue)) - (np.cumsum(lengths) - lengths)[dialogue]
    names = [f"d{number:05d}-{place:05d}" for place in dialogue]
    table = pa.table(
        {
            "dialogue_id": names,
            "utterance_index": index.astype(np.int32),
            "utterance_id": [f"{name}_{turn}" for name, turn in zip(names, index, strict=True)],
            "speaker": np.array(["A", "B", "C"])[random.integers(3, size=len(names))],
            "text": ["some words"] * len(names),
            "label": random.integers(CLASSES, size=len(names)).astype(np.int32),
            "split": ["train"] * len(names),
        }
        | {
            schema.vector_column(m): schema.pack_vectors(
                random.standard_normal((len(names), WIDTHS[m]), np.float32), np.ones(len(names), np.bool_)
            )
            for m in MODALITIES
        },
        schema=schema.shard_schema(WIDTHS),
    )
    data = shards._encode(table)
    path.write_bytes(data)
    digest = storage.digest(data)
    size, dialogues = len(data), len(lengths)
    return ShardEntry(name=path.name, split="train", size=size, sha256=digest, rows=len(names), dialogues=dialogues)


class Watch:
    """The most memory of this process's own, and the most bytes of local files, sampled."""

    def __init__(self) -> None:
        self.anonymous = self.files = 0.0

    @contextmanager
    def sampling(self, folder: Path) -> Iterator[None]:
        """Sample in a thread for the length of a block."""
        over = threading.Event()

        def sample() -> None:
            while not over.wait(_SAMPLE_S):
                self.anonymous = max(self.anonymous, _status("RssAnon"))
                self.files = max(self.files, _bytes_in(folder) / 2**20)

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _status(field: str) -> float:
    """Return a field of this process's account, in MiB."""
    return int(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0]) / 1024


def _bytes_in(folder: Path) -> int:
    """Return the bytes of all decoded files; each once, however many links it has."""
    found = {}
    for path in folder.rglob("*"):
        try:
            known = path.stat()
        except FileNotFoundError:
            continue
        found[known.st_ino] = known.st_size if path.is_file() else 0
    return sum(found.values())


def measure(uri: str) -> dict[str, float]:
    """Measure one set in this process."""
    torch.set_num_threads(1)
    features, watch = open_features(uri), Watch()
    config = resolve(preset="corrected", settings="meld", overrides={})
    rows = sum(entry.rows for entry in features.manifest.shards)
    facts: dict[str, float] = {"rows": rows, "MiB before": _status("VmHWM")}
    with watch.sampling(Path(tempfile.gettempdir())):
        started = time.perf_counter()
        split = open_split(features, "train", MODALITIES, shuffle_gib=config.training.shuffle_gib)
        facts["open, s"], started = time.perf_counter() - started, time.perf_counter()
        split.statistics("text")
        facts["statistics, s"], started = time.perf_counter() - started, time.perf_counter()
        seen = sum(
            _share(split, dialogues).labels.shape[0]
            for dialogues in split.epoch(seed=1, epoch=1, batch_dialogues=config.training.batch_dialogues).batches()
        )
        facts["epoch, rows/s"] = seen / (time.perf_counter() - started)
        facts |= _train(split)
    facts |= {"VmHWM, MiB": _status("VmHWM"), "RssAnon at most, MiB": watch.anonymous}
    return facts | {"local files at most, MiB": watch.files}


def _share(split: SplitData, dialogues: list[int]) -> DialogueBatch:
    return split.batch(share(dialogues, split.lengths, 1)[0], dialogues)


def _train(split: SplitData) -> dict[str, float]:
    """Return what a step takes, and what part of it the loop waits for the loader."""
    config = resolve(preset="corrected", settings="meld", overrides={})
    model = build_model(config, widths=WIDTHS, classes=CLASSES)
    optimizer = make_optimizer(model, learning_rate=1e-4, weight_decay=0.0)
    batches = split.epoch(seed=1, epoch=2, batch_dialogues=config.training.batch_dialogues).batches()
    split.batch(*[next(batches)] * 2)  # the first window is here
    waited, started = 0.0, time.perf_counter()
    for step in range(STEPS):
        wanted = time.perf_counter()
        dialogues = next(batches)
        batch = _share(split, dialogues)
        waited += time.perf_counter() - wanted
        train_step(model, [batch], optimizer, key=StepKey(0, step), clip_norm=2.0, balancer=make_balancer(config))
    took = time.perf_counter() - started
    return {"step, ms": took / STEPS * 1e3, "loader's share of a step": waited / took}


def run(rows: int) -> dict[str, float]:
    """Write a set, measure it in a fresh process, and delete all."""
    with tempfile.TemporaryDirectory(prefix="ada2i-benchmark-") as folder:
        home = Path(folder)
        (home / "set").mkdir()
        (home / "local").mkdir()
        features = write_set(home / "set", rows)
        command = [sys.executable, "-m", "tests.benchmarks.streaming", "--measure", features.uri]
        environment = os.environ | {"TMPDIR": str(home / "local"), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        facts: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return facts


def figures(facts: Mapping[str, float]) -> list[Figure]:
    """Return one size's figures."""
    size = f"streaming {facts['rows']:,.0f} utterances"
    return [
        Figure(f"{size}: rate without computing", facts["epoch, rows/s"], "utt/s"),
        Figure(f"{size}: loader's share of a step", facts["loader's share of a step"], "share", 0.03, at_most=True),
        Figure(f"{size}: peak memory, mapped files included", facts["VmHWM, MiB"], "MiB", 2048, at_most=True),
        Figure(f"{size}: peak memory of its own", facts["RssAnon at most, MiB"], "MiB"),
        Figure(f"{size}: local files at most", facts["local files at most, MiB"], "MiB"),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.streaming")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        sys.stdout.write(json.dumps(measure(given.measure)) + "\n")
        return
    finish(given.json, [figure for rows in given.rows for figure in figures(run(rows))])


if __name__ == "__main__":
    main()
