"""Everything that only a GPU can show: ``python -m tests.benchmarks.gpu --minutes 5 --json FILE [--device cpu]``.

Sections: speed of matrix products, golden cases, milliseconds of a step and its share of the products' speed, launches,
determinism, resume, the step as a CUDA graph, inference, training through Ray; with ``--ranks 2`` also NCCL. A section
that fails is a row of the table, and the rest goes on. The script ends in time whatever hangs, and prints the table
last. ``--small`` shrinks everything, for a trial on a CPU.

On a machine with torch alone, other packages travel as wheels. Where there is a network, in the checkout:

    pip download --only-binary=:all: --no-deps -d wheels pydantic==VERSION ...
    tar czf ada2i.tar.gz ada2i tests pyproject.toml wheels shared/parity

and on the machine, in the folder with the tar file's contents:

    pip install --no-index --no-deps --target site wheels/*.whl
    PYTHONPATH=site:. python -m tests.benchmarks.gpu --golden shared/parity --json gpu.json

The sections need numpy, safetensors, pydantic, pydantic-core, annotated-types, typing-extensions, typing-inspection,
psutil, rich, markdown-it-py, mdurl and pygments; resume also pyarrow; training through Ray all that ada2i needs.
``pip download`` takes ``--python-version`` and ``--platform`` if the machine has another Python.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from ada2i import devices

SIDE = 8192  # of the matrices whose product is the ceiling
STEPS, WARM_UP = 10, 4
_RESERVE_SECONDS = 10.0  # for the end, of the time that the script may take
PRECISIONS = ("float32", "TF32", "bfloat16")
REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = {"model.hidden_dim": 8, "model.encoder.feedforward_dim": 8, "model.encoder.layers": 1, "model.afw.rank": 2}


@dataclass(frozen=True)
class Row:
    """A line of the table: what was measured, and the value or what went wrong."""

    name: str
    value: float | str
    unit: str = ""


@dataclass(frozen=True)
class Options:
    """What to measure, and where."""

    device: str
    dialogues: tuple[int, ...]
    small: bool
    golden: Path
    ranks: int
    deadline: float  # of ``time.monotonic``

    @property
    def cuda(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.startswith("cuda")

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    def wait(self) -> None:
        """Wait until the device has computed everything."""
        if self.cuda:
            torch.cuda.synchronize()

    def prepare(self, *, deterministic: bool = False, tf32: bool = False) -> None:
        """Set the device up, as a training does."""
        devices.prepare(self.device, deterministic=deterministic, tf32=tf32)


Section = Callable[[Options], Iterable[Row]]


def card(options: Options) -> Iterator[Row]:
    """Name the device and the versions."""
    yield Row("torch", torch.__version__)
    if options.cuda:
        facts = torch.cuda.get_device_properties(options.device)
        yield Row("card", facts.name)
        yield Row("memory", facts.total_memory / 2**30, "GiB")


def ceiling(options: Options) -> Iterator[Row]:
    """Measure large products, the most that the device computes."""
    for precision in PRECISIONS:
        yield Row(f"product of {_side(options)}^3, {precision}", _ceiling(options, precision) / 1e12, "TFLOP/s")


def _side(options: Options) -> int:
    return 256 if options.small else SIDE


def _ceiling(options: Options, precision: str) -> float:
    """Return floating-point operations per second of a large product."""
    side, kind = _side(options), torch.bfloat16 if precision == "bfloat16" else torch.float32
    options.prepare(tf32=precision == "TF32")
    left, right = (torch.randn(side, side, device=options.device, dtype=kind) for _ in range(2))
    seconds = _seconds(options, lambda _: torch.mm(left, right), 5)
    return 2.0 * side**3 / seconds


def _seconds(options: Options, step: Callable[[int], object], steps: int) -> float:
    """Return the seconds of a step, of several that nothing waits for."""
    for number in range(WARM_UP if options.cuda else 1):
        step(number)
    options.wait()
    begun = time.perf_counter()
    for number in range(steps):
        step(number)
    options.wait()
    return (time.perf_counter() - begun) / steps


def golden_cases(options: Options) -> Iterator[Row]:
    """Compare with the golden vectors of the released code, without TF32."""
    from safetensors.torch import load_file

    from tests.parity import golden

    options.prepare()
    index = json.loads((options.golden / "index.json").read_text())
    for name in list(index)[: 1 if options.small else None]:
        seen = golden.check_case(index[name], load_file(options.golden / f"{name}.safetensors"), options.device)
        yield Row(f"golden case {name}", f"differs: {seen.failed()}" if seen.failed() else "agrees")


def _work(name: str, *, small: bool) -> Any:
    from tests.benchmarks.workload import WORKLOADS

    work = WORKLOADS[name]
    return replace(work, widths=dict.fromkeys(work.widths, 4), mean_length=4.0) if small else work


@lru_cache(maxsize=2)  # random numbers take longer than steps; other precisions take the same
def _batches(name: str, dialogues: int, batches: int, *, small: bool) -> list[Any]:
    return [_work(name, small=small).batch(dialogues, seed) for seed in range(batches)]


class Training:
    """A network and its optimizer on a device, with batches of random features of a workload's lengths."""

    def __init__(
        self,
        options: Options,
        name: str,
        dialogues: int,
        *,
        precision: str = "float32",
        batches: int = STEPS,
        **more: Any,
    ) -> None:
        from ada2i.balance import make_balancer
        from ada2i.model.build import build_model
        from ada2i.training.update import make_optimizer

        self.work = _work(name, small=options.small)
        if options.small:
            more |= {field.replace(".", "__"): value for field, value in SMALL.items()}
        kind = "bfloat16" if precision == "bfloat16" else "float32"
        self.config = self.work.config(model__precision=kind, **more)
        torch.manual_seed(0)
        model = build_model(self.config, widths=self.work.widths, classes=self.work.classes)
        self.model = model.to(options.device)
        self.optimizer = make_optimizer(self.model, learning_rate=1e-4, weight_decay=1e-8)
        self.balancer = make_balancer(self.config)
        made = _batches(self.work.name, dialogues, 2 if options.small else batches, small=options.small)
        self.batches = [batch.to(torch.device(options.device)) for batch in made]
        self.rows = sum(len(batch.labels) for batch in made) / len(made)

    def step(self, number: int) -> None:
        """Take a step; nothing waits for it."""
        from ada2i.training.status import StepKey
        from ada2i.training.step import train_step

        batch = replace(self.batches[number % len(self.batches)])
        # A new layout: every step of a training computes its own.
        batch = replace(batch, layout=replace(batch.layout))
        key = StepKey(0, number)
        train_step(self.model, [batch], self.optimizer, key=key, clip_norm=2.0, balancer=self.balancer)

    def digest(self) -> list[torch.Tensor]:
        """Return a copy of all weights."""
        return [parameter.detach().clone() for parameter in self.model.parameters()]


def step_times(options: Options) -> Iterator[Row]:
    """Measure steps of both workloads, sizes and precisions; the share of the ceiling counts linear maps only."""
    from tests.benchmarks.training import work_per_row

    tops = {precision: _ceiling(options, precision) for precision in PRECISIONS}
    for name in ("iemocap", "meld"):
        per_row = work_per_row(_work(name, small=options.small))
        for dialogues in options.dialogues:
            for precision in PRECISIONS:
                options.prepare(tf32=precision == "TF32")
                what = f"step, {name}, {dialogues} dialogues, {precision}"
                _reset_memory(options)
                training = Training(options, name, dialogues, precision=precision)
                seconds = _seconds(options, training.step, len(training.batches))
                yield Row(what, 1000 * seconds, "ms")
                useful = per_row * training.rows / seconds
                yield Row(f"{what}: share of the ceiling", 100 * useful / tops[precision], "%")
                if options.cuda:
                    yield Row(f"{what}: peak memory", torch.cuda.max_memory_allocated() / 2**30, "GiB")
    options.prepare(deterministic=True)
    training = Training(options, "iemocap", options.dialogues[0])
    seconds = _seconds(options, training.step, len(training.batches))
    yield Row(f"step, iemocap, {options.dialogues[0]} dialogues, float32, deterministic", 1000 * seconds, "ms")


def _reset_memory(options: Options) -> None:
    gc.collect()
    if options.cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def launches(options: Options) -> Iterator[Row]:
    """Count kernels and launches of a step (on a CPU: operators), and how long the GPU works."""
    from torch.profiler import ProfilerActivity, profile

    options.prepare()
    for name in ("iemocap", "meld"):
        for dialogues in options.dialogues[:2]:
            training = Training(options, name, dialogues)
            steps = len(training.batches)
            for number in range(WARM_UP if options.cuda else 1):
                training.step(number)
            options.wait()
            kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if options.cuda else [])]
            begun = time.perf_counter()
            with profile(activities=kinds) as found:
                for number in range(steps):
                    training.step(number)
                options.wait()
            wall, what = time.perf_counter() - begun, f"{name}, {dialogues} dialogues"
            events = list(found.events() or ())
            wanted = ("cudaLaunch", "cudaGraphLaunch", "cuLaunch") if options.cuda else ("aten::",)
            number = sum(event.name.startswith(wanted) for event in events)
            yield Row(f"{'launches' if options.cuda else 'aten calls, views too,'} per step, {what}", number / steps)
            if options.cuda:
                busy = sum(e.device_time_total for e in events if e.device_type.name == "CUDA")
                yield Row(f"GPU busy, {what}, under the profiler", 100 * busy / 1e6 / wall, "%")


def determinism(options: Options) -> Iterator[Row]:
    """Train twice from the same start, and compare all weights bit by bit."""
    variants: dict[str, dict[str, Any]] = {"reference": {}, "relational": {"model__encoder__kind": "relational"}}
    for variant, more in variants.items():
        for precision in ("float32", "bfloat16"):
            options.prepare(deterministic=True)
            runs = []
            for _ in range(2):
                training = Training(options, "iemocap", options.dialogues[0], precision=precision, **more)
                for number in range(5):
                    training.step(number)
                runs.append(training.digest())
            same = all(torch.equal(one, other) for one, other in zip(*runs, strict=True))
            yield Row(f"two runs of 5 steps, {variant}, {precision}", "equal bits" if same else "DIFFER")


def resume(options: Options) -> Iterator[Row]:
    """Interrupt a training of the demo corpus, resume it from its checkpoint, and compare its history and weights."""
    from ada2i.checkpoint import load_weights
    from ada2i.errors import PreemptedError
    from ada2i.training.fit import fit
    from ada2i.training.reporter import Reporter

    options.prepare(deterministic=True)
    with tempfile.TemporaryDirectory() as folder:
        whole = fit(_demo_task(options, Path(folder), "whole"), Reporter())
        task, steps = _demo_task(options, Path(folder), "resumed"), iter(range(10**6))
        try:
            fit(task, Reporter(), leave=lambda: next(steps) >= 2)
            yield Row("resume", "the training was not interrupted")
        except PreemptedError:
            pass
        resumed = fit(_demo_task(options, Path(folder), "resumed"), Reporter())
        weights = [load_weights(found.checkpoint_uri) for found in (whole, resumed)]
    same = all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    losses = [[record.loss for record in found.history] for found in (whole, resumed)]
    yield Row("a resumed training", "equal bits" if same and losses[0] == losses[1] else "DIFFERS")


def _demo_task(options: Options, folder: Path, run: str) -> Any:
    from ada2i.data.manifest import open_features
    from ada2i.importers.demo import write_demo_corpus
    from ada2i.loader.split_data import open_split
    from ada2i.presets import resolve
    from ada2i.training.task import Task

    features = open_features(write_demo_corpus((folder / "store").as_uri(), dialogues=26))
    overrides = {"training.epochs": 2, "training.seeds": [5], **(SMALL if options.small else {})}
    config = resolve(preset="reference", settings="demo", overrides=overrides)
    train, dev = (open_split(features, split, config.model.modalities) for split in ("train", "dev"))
    return Task(config, features.info(), 5, train, dev, (folder / run).as_uri(), torch.device(options.device))


def graph_step(options: Options) -> Iterator[Row]:
    """Compare captured steps with the steps themselves; on a CPU a recording of operators stands in for the graph."""
    from ada2i import fast
    from ada2i.training.graphs import GpuCapture, StepGraphs
    from ada2i.training.status import StepKey
    from tests.unit.training.recorded import record

    fast.enable(options.cuda)  # what is faster on a CPU reads random numbers on the host
    for precision in ("float32", "bfloat16"):
        options.prepare(deterministic=True)
        for dialogues in options.dialogues[:2]:
            training = Training(options, "iemocap", dialogues, precision=precision)
            what = f"graph step, {dialogues} dialogues, {precision}"
            plain = _seconds(options, training.step, 3)
            graphs = StepGraphs(
                training.model,
                training.optimizer,
                training.balancer,
                clip_norm=training.config.training.clip_norm,
                weights=training.config.loss,
                class_weights=None,
                batch_dialogues=dialogues,
                capture=GpuCapture() if options.cuda else record,
            )

            def step(number: int, training: Training = training, graphs: StepGraphs = graphs) -> None:
                batch = training.batches[number % len(training.batches)]
                graphs.step([batch], StepKey(1, number), leaving=False)

            step(0)
            yield Row(f"{what}: equal to the step itself", "yes" if graphs.usable else "no")
            yield Row(f"{what}: without the graph", 1000 * plain, "ms")
            if graphs.usable:
                yield Row(f"{what}: replayed", 1000 * _seconds(options, step, 3), "ms")
                yield Row(f"{what}: shapes captured", len(graphs.graphs))
    fast.enable(True)


def inference(options: Options) -> Iterator[Row]:
    """Predict as ``ada2i predict`` does, from arrays on the host to arrays on the host."""
    import numpy as np

    from ada2i.inference.predict import Dialogues, infer, slots_on

    device = torch.device(options.device)
    for precision in ("float32", "bfloat16"):
        options.prepare()
        training = Training(options, "iemocap", 8 if options.small else 1000, precision=precision, batches=1)
        batch = training.batches[0].to(torch.device("cpu"))
        dialogues = Dialogues(
            features={m: x.numpy() for m, x in batch.features.items()},
            present={m: x.numpy() for m, x in batch.present.items()},
            speakers=batch.speakers.numpy(),
            lengths=np.array(batch.layout.lengths),
            padded=None,
        )
        training.batches.clear()
        model, slots = training.model.eval(), slots_on(device, 512)

        def step(_: int, model: Any = model, dialogues: Dialogues = dialogues, slots: int = slots) -> None:
            infer(model, dialogues, batch=slots, device=device)

        seconds = _seconds(options, step, 3)
        yield Row(f"inference, {precision}, {slots} slots", len(batch.labels) / seconds, "utterances/s")


def through_ray(options: Options) -> Iterator[Row]:
    """Train the demo corpus by the command, with default options: a GPU must be used."""
    with tempfile.TemporaryDirectory() as root:
        fields = ["training.epochs=2", *([] if options.cuda else ["resources.device=cpu"])]
        command = [sys.executable, "-m", "ada2i", "train", "demo", "--seeds", "1", "--root", root]
        command += [part for field in fields for part in ("--set", field)]
        begun = time.perf_counter()
        done = subprocess.run(
            command, cwd=REPOSITORY, capture_output=True, text=True, timeout=max(1.0, options.left - 5.0), check=False
        )
    said = [line.strip() for line in done.stderr.splitlines() if " on cuda" in line or " on cpu" in line]
    last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no output"]
    yield Row("ada2i train demo", said[0] if said and done.returncode == 0 else f"failed: {last[0][:200]}")
    yield Row("ada2i train demo, with the start of Ray", time.perf_counter() - begun, "s")


def ranks(options: Options) -> Iterator[Row]:
    """Sum over ranks, then let the last one fail or be killed: the others must end within seconds."""
    backend = "nccl" if options.cuda else "gloo"
    for how in ("together", "raises", "killed") if options.ranks > 1 else ():
        with tempfile.TemporaryDirectory() as folder:
            begun, limit = time.perf_counter(), max(1.0, min(60.0, options.left - 5.0))
            running = [_rank(options, rank, f"{folder}/address", how, backend) for rank in range(options.ranks)]
            try:
                said = [process.communicate(timeout=limit)[0].strip().replace("\n", "; ") for process in running]
            except subprocess.TimeoutExpired:
                said = [f"still running after {limit:.0f} s"]
            finally:
                for process in running:
                    process.kill()
        yield Row(f"{options.ranks} ranks by {backend}, {how}", " | ".join(text[:120] for text in said))
        yield Row(f"{options.ranks} ranks by {backend}, {how}, with their start", time.perf_counter() - begun, "s")


def _rank(options: Options, rank: int, address: str, how: str, backend: str) -> "subprocess.Popen[str]":
    visible = {"CUDA_VISIBLE_DEVICES": str(rank)} if options.cuda else {}
    arguments = [str(rank), address, how, str(options.ranks), backend]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.unit.training.failing_rank", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **visible},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


SECTIONS: tuple[Section, ...] = (
    card,
    ceiling,
    golden_cases,
    step_times,
    launches,
    determinism,
    resume,
    graph_step,
    inference,
    ranks,
    through_ray,
)


def measure(options: Options, rows: list[Row], wanted: Iterable[str] = ()) -> None:
    """Run the sections and append to the rows; a section that fails is a row, and the rest goes on."""
    for section in SECTIONS:
        if wanted and section.__name__ not in wanted:
            continue
        if options.left < 0:
            rows.append(Row(section.__name__, "not run: out of time"))
            continue
        begun = time.monotonic()
        try:
            for row in section(options):
                rows.append(row)
                if options.left < 0:
                    rows.append(Row(section.__name__, "cut short: out of time"))
                    break
        except Exception as problem:  # noqa: BLE001 - whatever a section raises, the others are measured
            last = traceback.extract_tb(problem.__traceback__)[-1]
            place = f"{Path(last.filename).name}:{last.lineno}"
            text = (str(problem).strip().splitlines() or [""])[0]
            rows.append(Row(section.__name__, f"failed: {type(problem).__name__} at {place}: {text[:200]}"))
        rows.append(Row(f"section {section.__name__}", time.monotonic() - begun, "s"))
        gc.collect()


def report(rows: list[Row], target: Path | None) -> None:
    """Write the rows as JSON where a file is wanted, then print them as a table."""
    if target is not None:
        target.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    wide = max((len(row.name) for row in rows), default=0)
    for row in rows:
        value = row.value if isinstance(row.value, str) else f"{row.value:,.4g}"
        sys.stdout.write(f"{row.name:<{wide}}  {value} {row.unit}\n")
    sys.stdout.flush()


def _end_in_time(options: Options, rows: list[Row], target: Path | None) -> None:
    """Report and end the process if a section still hangs some seconds after the deadline."""

    def end() -> None:
        report([*rows, Row("the script", "ended by its deadline: a section hung")], target)
        os._exit(3)

    timer = threading.Timer(options.left + _RESERVE_SECONDS, end)
    timer.daemon = True
    timer.start()


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dialogues", type=int, nargs="+", default=[10, 64, 256])
    parser.add_argument("--golden", type=Path, default=REPOSITORY.parent / "shared" / "parity")
    parser.add_argument("--ranks", type=int, default=1, help="GPUs for the section on NCCL; 1: it is left out")
    parser.add_argument("--sections", nargs="+", default=[], help="names of functions here; default: all")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try the script on a CPU")
    given = parser.parse_args()
    deadline = time.monotonic() + 60.0 * given.minutes - _RESERVE_SECONDS
    options = Options(given.device, tuple(given.dialogues), given.small, given.golden, given.ranks, deadline)
    rows: list[Row] = []
    _end_in_time(options, rows, given.json)
    measure(options, rows, given.sections)
    report(rows, given.json)
    os._exit(0)  # a thread of a failed section must not keep the process alive


if __name__ == "__main__":
    main()
