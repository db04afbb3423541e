"""Two workers against one: ``python -m tests.benchmarks.scaling [--json FILE] [--steps N]``.

Plain gloo process groups of one thread each, on the same global batches; the median over steps of the slowest rank's
time. One and two ranks run alternately, so that other load on the machine meets both alike.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from ada2i.balance import make_balancer
from ada2i.config import LossConfig
from ada2i.fast.allocator import keep_freed_memory
from ada2i.loader.order import share
from ada2i.model.build import build_model
from ada2i.training.ddp import replicate
from ada2i.training.status import StepKey
from ada2i.training.step import train_step
from ada2i.training.update import make_optimizer
from tests.benchmarks.workload import WORKLOADS, Figure, finish, part_of

WARM_UP = 2
ROUNDS = 3
CASES = (("iemocap", 10, 1.7), ("meld", 10, 1.35), ("meld", 64, 1.7))  # workload, dialogues of a batch, target


def measure(steps: int) -> list[Figure]:
    """Measure all cases."""
    figures = []
    for name, dialogues, target in CASES:
        seconds: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(ROUNDS):
            for world, taken in seconds.items():
                taken.append(run(name, dialogues, world, steps))
        ratio = statistics.median(seconds[1]) / statistics.median(seconds[2])
        figures.append(Figure(f"{name}, batch of {dialogues}: 2 workers over 1", ratio, "times", target))
    return figures


def run(name: str, dialogues: int, world: int, steps: int) -> float:
    """Return the median seconds of a step with the given number of ranks."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.benchmarks.scaling", "--rank"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        job = {"folder": folder, "name": name, "dialogues": dialogues, "world": world, "steps": steps}
        jobs = [json.dumps(job | {"rank": rank}) for rank in range(world)]
        ranks = [subprocess.Popen([*command, job], env=environment) for job in jobs]
        if any([rank.wait() for rank in ranks]):
            raise RuntimeError(f"a rank of {name} with {world} workers failed")
        taken: list[list[float]] = [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(world)]
    slowest = [max(at_once) for at_once in zip(*taken, strict=True)]
    return float(statistics.median(slowest))


def work_as_rank(*, folder: str, name: str, dialogues: int, world: int, steps: int, rank: int) -> None:
    """Take steps as one rank, and write their seconds."""
    torch.set_num_threads(1)
    keep_freed_memory()
    if world > 1:
        store = Path(folder, "store").as_uri()
        dist.init_process_group("gloo", store, rank=rank, world_size=world, timeout=timedelta(seconds=300))
    work = WORKLOADS[name]
    config = work.config()
    torch.manual_seed(0)
    model = build_model(config, widths=work.widths, classes=work.classes)
    optimizer = make_optimizer(model, learning_rate=1e-4, weight_decay=1e-8)
    wholes = [work.batch(dialogues, seed) for seed in range(4)]
    lengths = [np.asarray(whole.layout.lengths) for whole in wholes]
    owns = [share(range(dialogues), n, world)[rank] for n in lengths]
    parts = [part_of(whole, own) for whole, own in zip(wholes, owns, strict=True)]
    network = replicate(model, parts[0], LossConfig())
    seconds = []
    for number in range(steps + WARM_UP):
        started = time.perf_counter()
        train_step(
            network,
            [parts[number % len(parts)]],
            optimizer,
            key=StepKey(0, number),
            clip_norm=2.0,
            balancer=make_balancer(config),
        )
        seconds.append(time.perf_counter() - started)
    Path(folder, f"{rank}.json").write_text(json.dumps(seconds[WARM_UP:]))


def main() -> None:
    """Measure, or work as a rank of what is measured."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scaling")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rank", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank:
        work_as_rank(**json.loads(arguments.rank))
    else:
        finish(arguments.json, measure(arguments.steps))


if __name__ == "__main__":
    main()
