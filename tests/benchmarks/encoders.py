"""What the default costs: ``python -m tests.benchmarks.encoders [--json FILE] [--steps N]``.

Milliseconds of a step of `corrected` on one batch of IEMOCAP's settings with its relational encoder, with the attention
encoder `context` and with attention whose logits fall at learned rates, in turns, in one process with one thread, as
the process's own time on the processor; parameters, and the memory that a forward pass keeps for the backward pass; and
the seconds of the linear floor on a table of MELD's size.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ada2i.balance import make_balancer
from ada2i.batch import DialogueBatch
from ada2i.fast.allocator import keep_freed_memory
from ada2i.inference.floor import solve_for
from ada2i.jobs import code
from ada2i.model.ada2i import Ada2I
from ada2i.model.build import build_model
from ada2i.presets import resolve
from ada2i.training.status import StepKey
from ada2i.training.step import train_step
from ada2i.training.update import make_optimizer
from tests.benchmarks.workload import WORKLOADS, Figure, finish

WORK = WORKLOADS["iemocap"]
WARM_UP = 2
KINDS: dict[str, dict[str, Any]] = {
    "context": {"model.encoder.kind": "context", "model.encoder.positions": True, "model.encoder.speakers": True},
    "decaying attention": {"model.encoder.kind": "examples.methods.decaying_attention:DecayingAttention"},
    "relational": {},
}
UTTERANCES, INPUTS, CLASSES = 9989, 6 * 768 + 1, 7  # of MELD's train, with text vectors of 768
_SECONDS = 60.0  # of the floor
_HALF = 0.5  # of a step with attention


def stepper(kind: str) -> tuple[Callable[[], float], int, int]:
    """Return a function that takes a step and returns its seconds, the number of parameters, and ``kept``."""
    config = resolve(preset="corrected", settings="iemocap", overrides=KINDS[kind])
    with code.named(code.digests(config.own_code)):
        model = build_model(config, widths=WORK.widths, classes=WORK.classes)
    optimizer = make_optimizer(model, learning_rate=1e-4, weight_decay=1e-8)
    balancer, batch, taken = make_balancer(config), WORK.batch(10, 0), 0
    balancer.set_epoch(1)

    def step() -> float:
        nonlocal taken
        started = time.process_time()
        train_step(model, [batch], optimizer, key=StepKey(0, taken), clip_norm=2.0, balancer=balancer)
        taken += 1
        return time.process_time() - started

    return step, sum(p.numel() for p in model.parameters()), kept(model, batch)


def kept(model: Ada2I, batch: DialogueBatch) -> int:
    """Return the bytes that a forward pass keeps for the backward pass, without parameters."""
    own = {p.data_ptr() for p in model.parameters()}
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        prediction = model(batch)
    del prediction  # kept until here, so that no address is used twice
    return sum(sizes.values())


def measure(steps: int) -> list[Figure]:
    """Measure both encoders in turns."""
    steppers = {kind: stepper(kind) for kind in KINDS}
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(steps + WARM_UP):
        for kind, (step, _, _) in steppers.items():
            seconds[kind].append(step())
    medians = {kind: statistics.median(taken[WARM_UP:]) for kind, taken in seconds.items()}
    figures = [Figure(f"encoder {kind}: a step", 1e3 * median, "ms") for kind, median in medians.items()]
    figures += [Figure(f"encoder {kind}: parameters", n / 1e6, "million") for kind, (_, n, _) in steppers.items()]
    figures += [Figure(f"encoder {kind}: kept", size / 2**20, "MiB") for kind, (_, _, size) in steppers.items()]
    share = medians["relational"] / medians["context"]
    return [*figures, Figure("encoder relational: over context", share, "times", _HALF, at_most=True), floor()]


def floor() -> Figure:
    """Measure the linear floor on random vectors, with all strengths of L2."""
    random = np.random.RandomState(0)
    inputs = torch.from_numpy(random.standard_normal((UTTERANCES, INPUTS)).astype(np.float32))
    labels = torch.from_numpy(random.randint(0, CLASSES, UTTERANCES))
    started = time.process_time()
    solve_for(inputs, labels, inputs[:1000], labels[:1000], classes=CLASSES)
    return Figure("floor: MELD's size, one core", time.process_time() - started, "s", _SECONDS, at_most=True)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.encoders")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--steps", type=int, default=12)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    finish(arguments.json, measure(arguments.steps))


if __name__ == "__main__":
    main()
