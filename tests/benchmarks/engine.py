"""What surrounds a step: ``python -m tests.benchmarks.engine [--json FILE]``.

Checkpoints: steps at IEMOCAP's settings with one thread, an epoch every 12 steps, with and without checkpoints at the
default interval on a local disk, alternately; the processor time that checkpoints took, over all time. First step: from
the start of a Ray job's driver to the first optimizer step of two workers, on a Ray head that is already up; and from
the request of a flow run to the line about that step in its log, the median of three on a local stack that has trained
before.
"""

import argparse
import os
import statistics
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from uuid import UUID

import torch
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ada2i.balance import make_balancer
from ada2i.checkpoint import EpochPart, Rng, TrainCursor, TrainState
from ada2i.config import ResourceConfig
from ada2i.fast.allocator import keep_freed_memory
from ada2i.jobs.cluster import cluster, short_folder
from ada2i.jobs.events import Event
from ada2i.model.build import build_model
from ada2i.records import FeatureInfo
from ada2i.training.launch import launch
from ada2i.training.request import TrainSpec, prepare
from ada2i.training.saving import Saver
from ada2i.training.status import StepKey
from ada2i.training.step import train_step
from ada2i.training.update import make_optimizer
from infra import stack as stacks
from infra.services import DEPLOYMENT
from tests.benchmarks.workload import WORKLOADS, Figure, finish
from tests.runs import client_settings, job_of, until

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
                    saver._await_write()  # so that its cost is known
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


def requested_step() -> list[Figure]:
    """Return the seconds from the request of a flow run to its first step, on a stack that has trained before."""
    folder = short_folder()
    try:
        stack = stacks.start(folder, preferred_ports=False)
        with client_settings(stack), get_client(sync_client=True) as prefect:
            seconds = [_seconds_to_step(prefect, number) for number in range(4)]
    finally:
        stacks.stop(folder)
    median = statistics.median(seconds[1:])
    return [Figure("request of a flow run to first step, 2 workers", median, "s", 20.0, at_most=True)]


def _seconds_to_step(prefect: SyncPrefectClient, number: int) -> float:
    deployment = prefect.read_deployment_by_name(f"{DEPLOYMENT}/{DEPLOYMENT}")
    overrides = {"training.epochs": number + 1}  # another config each time: an equal one would be skipped
    parameters = {"features": "demo", "overrides": overrides, "seeds": [1], "promote": False}
    begun = time.time()
    run = prefect.create_flow_run_from_deployment(deployment.id, parameters=parameters)
    own = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id]))
    until(lambda: _ended(prefect, run.id), "the end of the run")
    lines = until(lambda: [log for log in prefect.read_logs(own) if "First optimizer step" in log.message], "its line")
    return float(lines[0].timestamp.timestamp() - begun)


def _ended(prefect: SyncPrefectClient, run: UUID) -> bool:
    state = prefect.read_flow_run(run).state
    return state is not None and state.is_final()


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.engine")
    parser.add_argument("--json", type=Path)
    target = parser.parse_args().json
    keep_freed_memory()
    finish(target, [*checkpoint_cost(), *first_step(), *requested_step()])


if __name__ == "__main__":
    main()
