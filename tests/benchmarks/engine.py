"""What surrounds a step: ``python -m tests.benchmarks.engine [--json FILE]``.

Checkpoints: steps at IEMOCAP's settings with one thread, an epoch every 12 steps, with and without checkpoints at the
default interval on a local disk, alternately; the processor time that checkpoints took, over all time. First step: from
the start of a Ray job's driver to the first optimizer step of two workers, on a Ray head that is already up.
"""

import argparse
import os
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ada2i.balance import make_balancer
from ada2i.checkpoint import EpochPart, Rng, TrainCursor, TrainState
from ada2i.config import ResourceConfig
from ada2i.fast.allocator import keep_freed_memory
from ada2i.jobs.cluster import cluster
from ada2i.jobs.events import Event
from ada2i.model.build import build_model
from ada2i.records import FeatureInfo
from ada2i.training.launch import launch
from ada2i.training.request import TrainSpec, prepare
from ada2i.training.saving import Saver
from ada2i.training.status import StepKey
from ada2i.training.step import train_step
from ada2i.training.update import make_optimizer
from tests.benchmarks.workload import WORKLOADS, Figure, finish
from tests.runs import job_of

EPOCHS, STEPS = 8, 12
WORK = WORKLOADS["iemocap"]


def checkpoint_cost() -> list[Figure]:
    """Return the share of time that checkpoints take, and how many were written."""
    torch.set_num_threads(1)
    config = WORK.config()
    model = build_model(config, widths=WORK.widths, classes=WORK.classes)
    optimizer = make_optimizer(model, learning_rate=1e-4, weight_decay=1e-8)
    balancer = make_balancer(config)
    state = TrainState(model, optimizer, ReduceLROnPlateau(optimizer), balancer)
    batches = [WORK.batch(config.training.batch_dialogues, seed) for seed in range(STEPS)]
    costs, written, started = 0.0, 0, time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        saver = Saver(Path(folder).as_uri(), state, minutes=ResourceConfig().checkpoint_minutes)
        with saver:
            for epoch in range(1, EPOCHS + 1):
                for place, batch in enumerate(batches):
                    key = StepKey(0, (epoch - 1) * STEPS + place)
                    train_step(model, [batch], optimizer, key=key, clip_norm=2.0, balancer=balancer)
                progress = _progress(epoch)
                begun = time.thread_time()
                saver.keep_best(progress)  # as if every epoch were the best so far
                costs += time.thread_time() - begun
                if saver.due(epoch_done=True):
                    saver.start(progress)
                    saver._settle()  # so that its cost is known
                    costs, written = costs + saver.cost, written + 1
    took = time.perf_counter() - started
    return [
        Figure("checkpoints at the default interval, of all time", costs / took, "share", 0.05, at_most=True),
        Figure("checkpoints written meanwhile", written, f"in {took:.0f} s"),
    ]


def _progress(epoch: int) -> TrainCursor:
    features = FeatureInfo(
        uri="file:///nowhere",
        fingerprint="0" * 32,
        dataset="iemocap",
        labels=("a",) * WORK.classes,
        widths=WORK.widths,
        synthetic=True,
    )
    return TrainCursor(
        config=WORK.config(),
        features=features,
        rng=Rng(seed=0, step=epoch * STEPS),
        epoch=epoch,
        step=epoch * STEPS,
        best_epoch=epoch,
        best_step=epoch * STEPS,
        best_dev=None,
        stale_epochs=0,
        history=(),
        part=EpochPart(),
    )


def first_step() -> list[Figure]:
    """Return the seconds to the first step of a run, the second on its head."""
    seconds: list[float] = []

    def listen(event: Event | str) -> None:
        if not isinstance(event, str) and event["kind"] == "first_step":
            seconds.append(float(event["seconds"]))

    with tempfile.TemporaryDirectory() as folder, cluster() as ray:
        os.environ["RAY_API_SERVER_ADDRESS"] = ray.address
        for number in range(2):
            spec = TrainSpec(features="demo", overrides={"training.epochs": 1, "training.seeds": [1]})
            uri = prepare(spec, root=Path(folder).as_uri(), run_id=f"first-step-{number}").uri
            launch(job_of(uri), lambda *_: nullcontext(listen))
    return [Figure("driver's start to first step, 2 workers", seconds[-1], "s", 15.0, at_most=True)]


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.engine")
    parser.add_argument("--json", type=Path)
    target = parser.parse_args().json
    keep_freed_memory()
    finish(target, [*checkpoint_cost(), *first_step()])


if __name__ == "__main__":
    main()
