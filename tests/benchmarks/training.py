"""Training and inference against a plain step: ``python -m tests.benchmarks.training [--json FILE] [--steps N]``.

Same network, same dialogues (lengths drawn as in the dataset, batches of 10), one process, all of the machine's
threads: the plain step of ``plain.py`` and ours in float32 and bfloat16, alternately, so that other load on the machine
does meets all alike. Figures are ratios of medians over steps. Modulation and noise are on, as from the fourth epoch.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ada2i.balance import make_balancer
from ada2i.batch import DialogueBatch
from ada2i.fast.allocator import keep_freed_memory
from ada2i.inference.predict import Dialogues, infer
from ada2i.model.build import build_model
from ada2i.training.status import StepKey
from ada2i.training.step import train_step
from ada2i.training.update import make_optimizer
from tests.benchmarks.plain import PlainAda2I, pad, plain_step, true_class_scores
from tests.benchmarks.workload import WORKLOADS, Figure, Workload, finish

WARM_UP = 2
_TARGETS = {  # by workload: training in float32 and bfloat16
    "iemocap": (2.4, 4.5),
    "meld": (4.5, 7.0),
}
_INFERENCE = (2.5, 5.0)
_MATMUL = (0.65, 0.5)  # share of the machine's matrix product that training reaches
_PRECISIONS = ("float32", "bfloat16")
_SIDE = 2048  # of the matrices whose product useful work is compared with
_PRODUCT = 2.0 * _SIDE**3  # floating-point operations

Step = Callable[[int], object]


def measure(work: Workload, steps: int) -> list[Figure]:
    """Measure one workload."""
    batches = [work.batch(10, seed) for seed in range(steps + WARM_UP)]
    products = {f"matmul, {p}": _product(p) for p in _PRECISIONS}
    training = {"plain": _plain_training(work, batches)} | {p: _training(work, p, batches) for p in _PRECISIONS}
    some = batches[:8]
    inference = {"plain": _plain_inference(work, some)} | {p: _inference(work, p, some) for p in _PRECISIONS}
    trained, predicted = _by_turns(training | products, steps), _by_turns(inference, 3)
    rows = statistics.mean(len(batch.labels) for batch in batches[WARM_UP:])
    figures = [Figure(f"{work.name}: {name}, training", rows / trained[name], "utt/s") for name in training]
    for place, precision in enumerate(_PRECISIONS):
        rate = _PRODUCT / trained[f"matmul, {precision}"]
        useful = work_per_row(work) * rows / trained[precision]
        figures += [
            Figure(f"{work.name}: {precision} over plain, training", trained["plain"] / trained[precision], "times",
                   _TARGETS[work.name][place]),
            Figure(f"{work.name}: {precision} over plain, inference", predicted["plain"] / predicted[precision],
                   "times", _INFERENCE[place]),
            Figure(f"{work.name}: {precision}, useful work over matmul", useful / rate, "share",
                   _MATMUL[place]),
        ]  # fmt: skip
    return figures


def work_per_row(work: Workload) -> float:
    """Return the floating-point operations that the linear maps need for an utterance, forward and backward."""
    model = build_model(work.config(), widths=work.widths, classes=work.classes)
    weights = sum(module.weight.numel() for module in model.modules() if isinstance(module, torch.nn.Linear))
    inputs = sum(3 * width**2 for width in work.widths.values())  # the first layers' queries, keys and values
    return 2.0 * (3 * weights - inputs)  # which need no gradient of the features


def _by_turns(ways: dict[str, Step], steps: int) -> dict[str, float]:
    """Return the median seconds of each way."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(steps + WARM_UP):
        for name, step in ways.items():
            started = time.perf_counter()
            step(number)
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(taken[WARM_UP:]) for name, taken in seconds.items()}


def _product(precision: str) -> Step:
    """Multiply two large matrices, as torch does."""
    left, right = (torch.randn(_SIDE, _SIDE).to(getattr(torch, precision)) for _ in range(2))
    return lambda _: torch.mm(left, right)


def _plain_training(work: Workload, batches: list[DialogueBatch]) -> Step:
    config = work.config()
    model = PlainAda2I(config, work.widths, work.classes)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, weight_decay=1e-8)
    return lambda number: plain_step(model, optimizer, batches[number], config, modulate=True)


def _training(work: Workload, precision: str, batches: list[DialogueBatch]) -> Step:
    config = work.config(model__precision=precision)
    model = build_model(config, widths=work.widths, classes=work.classes)
    optimizer = make_optimizer(model, learning_rate=1e-4, weight_decay=1e-8)

    def step(number: int) -> None:
        key = StepKey(0, number)
        train_step(model, [batches[number]], optimizer, key=key, clip_norm=2.0, balancer=make_balancer(config))

    return step


def _plain_inference(work: Workload, batches: list[DialogueBatch]) -> Step:
    model = PlainAda2I(work.config(), work.widths, work.classes).eval()

    def step(_: int) -> None:
        with torch.inference_mode():
            for batch in batches:
                _, alone, _ = model(pad(batch))
                true_class_scores(alone, batch)  # the released code computes its ratio in every forward pass

    return step


def _inference(work: Workload, precision: str, batches: list[DialogueBatch]) -> Step:
    """Predict the same dialogues as `ada2i predict` does: the batches are its own."""
    model = build_model(work.config(model__precision=precision), widths=work.widths, classes=work.classes).eval()
    dialogues = Dialogues(
        features={m: np.concatenate([batch.features[m].numpy() for batch in batches]) for m in work.widths},
        present={m: np.concatenate([batch.present[m].numpy() for batch in batches]) for m in work.widths},
        speakers=np.concatenate([batch.speakers.numpy() for batch in batches]),
        lengths=np.concatenate([batch.layout.lengths for batch in batches]),
        padded=None,
    )
    return lambda _: infer(model, dialogues, batch=512, device=torch.device("cpu"))


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.training")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--steps", type=int, default=12)
    arguments = parser.parse_args()
    keep_freed_memory()
    finish(arguments.json, [figure for work in WORKLOADS.values() for figure in measure(work, arguments.steps)])


if __name__ == "__main__":
    main()
