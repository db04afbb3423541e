"""Registered versions of tiny models, trained in a second on the demo corpus with splits of one's own."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from ada2i import storage
from ada2i.data.shards import write_features
from ada2i.importers import demo
from ada2i.registry.versions import Version, register
from ada2i.store import RunFolder
from ada2i.training.evaluate import evaluate_run
from ada2i.training.launch import train_group
from ada2i.training.reporter import Reporter
from ada2i.training.request import TrainSpec, prepare
from tests.runs import run_uri
from tests.unit.registry.finished import ENVIRONMENT
from tests.unit.training.small import TINY

Splitter = Callable[[int], str]  # number of a dialogue -> its split

QUICK = {**TINY, "resources.workers": 1, "training.epochs": 6, "training.learning_rate": 3e-3}
UNTRAINED = {"training.epochs": 1, "training.learning_rate": 1e-9}


def early(dialogue: int) -> str:
    """Return splits of 80 dialogues: 40 of train, 10 of dev, 20 of test; the last ten are not there yet."""
    return [*["train"] * 40, *["dev"] * 10, *["test"] * 20, *[""] * 10][dialogue]


def features(root: str, split_of: Splitter, *, dialogues: int = 80, encoder: str = "synthetic", **changes: Any) -> str:
    """Write made-up features with splits of one's own; dialogues of the split "" are left out. Return the URI."""
    table = demo._table(np.random.RandomState(7), dialogues)
    splits = [split_of(int(str(name).removeprefix("demo-"))) for name in table["dialogue_id"].to_pylist()]
    table = table.set_column(table.schema.get_field_index("split"), table.schema.field("split"), pa.array(splits))
    for name, column in changes.items():
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)
    return write_features(
        root,
        table.filter(pa.array([split != "" for split in splits])),
        dataset="talks",
        synthetic=True,
        labels=demo.LABELS,
        encoders=dict.fromkeys(demo._SENSES, encoder),
        dev_rule=None,
        source="made up",
    )


def trained(root: str, run_id: str, uri: str, **more: Any) -> Version:
    """Train a tiny model on features and register it; keywords are dotted fields with __ for dots."""
    overrides = QUICK | {name.replace("__", "."): value for name, value in more.items()}
    run = prepare(TrainSpec(features=uri, overrides=overrides), root=root, run_id=run_id).uri
    assert run == run_uri(root, run_id)
    folder = RunFolder(run)
    seeds = overrides["training.seeds"][:1]
    assert train_group(folder, folder.request(), seeds, Reporter(), use_gpu=False, in_process=True) is None
    storage.put(storage.join(run, "environment.json"), json.dumps(ENVIRONMENT).encode())
    evaluate_run(run)
    return register(run, root=root, model="talks")
