"""How long a person waits before anything happens: ``python -m tests.benchmarks.startup [--json FILE]``.

Each figure is the median of five fresh processes. The import of numpy tells a slow machine from slow code.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq

import ada2i
from tests.benchmarks.workload import Figure, finish

TIMES = 5


def seconds(*command: str) -> float:
    """Return the time of a command in a fresh process."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    return time.perf_counter() - begun


def milliseconds_of(statement: str) -> float:
    """Return the median time of a statement, without the start of its interpreter."""
    code = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
    runs = [subprocess.run([sys.executable, "-c", code], check=True, capture_output=True) for _ in range(TIMES)]
    return 1000 * statistics.median(float(run.stdout) for run in runs)


def measure() -> list[Figure]:
    """Measure the import, a command without work, and a prediction of 100 rows."""
    with tempfile.TemporaryDirectory() as folder:
        run = ada2i.train("demo", {"training.epochs": 1}, seeds=[1], root=folder, progress=False)
        model = ada2i.load(run.register("startup"), root=folder)
        table = Path(folder) / "table.parquet"
        pq.write_table(ada2i.demo_table().slice(0, 100), table)
        command = ["-m", "ada2i", "predict", model.name, str(table), "--root", folder]
        # Another folder for the result each time: a finished prediction is only checked.
        predicted = statistics.median(seconds(*command, "--out", f"{folder}/{number}") for number in range(TIMES))
    version = statistics.median(seconds("-m", "ada2i", "--version") for _ in range(TIMES))
    return [
        Figure("startup: import ada2i", milliseconds_of("import ada2i"), "ms", 300, at_most=True),
        Figure("startup: import numpy, for comparison", milliseconds_of("import numpy"), "ms"),
        Figure("startup: ada2i --version", version, "s"),
        Figure("startup: ada2i predict of 100 rows", predicted, "s", 6, at_most=True),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.startup")
    parser.add_argument("--json", type=Path)
    finish(parser.parse_args().json, measure())


if __name__ == "__main__":
    main()
