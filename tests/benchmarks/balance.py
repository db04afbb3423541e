"""What each balance method costs: ``python -m tests.benchmarks.balance [--json FILE] [--steps N]``.

Milliseconds of a step on one batch of IEMOCAP's settings, relative to method `none`, in one process with one thread. It
is the process's own time on the processor, and each method's steps alternate with steps of `none`, so that other load
on the machine does not matter; each figure is a ratio of medians.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from ada2i.balance import make_balancer
from ada2i.config import BALANCE_METHODS
from ada2i.fast.allocator import keep_freed_memory
from ada2i.model.build import build_model
from ada2i.training.status import StepKey
from ada2i.training.step import train_step
from ada2i.training.update import make_optimizer
from tests.benchmarks.workload import WORKLOADS, Figure, finish

WORK = WORKLOADS["iemocap"]
WARM_UP = 2
_MOST = 1.1  # of a step without balancing; methods with a second backward pass may cost more
_SECOND_PASS = ("mmpareto",)


def stepper(method: str) -> Callable[[], float]:
    """Return a function that takes a step of the fourth epoch and returns its seconds."""
    config = WORK.config(balance__method=method)
    model = build_model(config, widths=WORK.widths, classes=WORK.classes)
    optimizer = make_optimizer(model, learning_rate=1e-4, weight_decay=1e-8)
    balancer = make_balancer(config)
    batch = WORK.batch(10, 0)
    encodings = torch.randn(len(batch.labels), len(WORK.widths), config.model.hidden_dim)  # of teachers
    batch = replace(batch, dialogues=tuple(range(10)), members=tuple(range(10)), taught_encodings=encodings)
    taken = 0

    def step() -> float:
        nonlocal taken
        started = time.process_time()
        train_step(model, [batch], optimizer, key=StepKey(0, taken), clip_norm=2.0, balancer=balancer)
        taken += 1
        return time.process_time() - started

    for epoch in (1, 2, 7):  # methods with a memory of earlier epochs have one
        balancer.set_epoch(epoch)
        step()
    return step


def measure(steps: int) -> list[Figure]:
    """Measure all methods, one after the other, each against `none`."""
    figures = []
    free = stepper("none")
    for method in BALANCE_METHODS:
        own = stepper(method)
        seconds: dict[bool, list[float]] = {True: [], False: []}
        for number in range(steps + WARM_UP):
            for mine in (number % 2 == 0, number % 2 == 1):
                seconds[mine].append((own if mine else free)())
        medians = {mine: statistics.median(taken[WARM_UP:]) for mine, taken in seconds.items()}
        target = None if method in (*_SECOND_PASS, "none") else _MOST
        figures += [
            Figure(f"balance {method}: a step", 1e3 * medians[True], "ms"),
            Figure(f"balance {method}: over none", medians[True] / medians[False], "times", target, at_most=True),
        ]
    return figures


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.balance")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--steps", type=int, default=12)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    finish(arguments.json, measure(arguments.steps))


if __name__ == "__main__":
    main()
