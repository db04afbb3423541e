"""All benchmarks: ``python -m tests.benchmarks [--out FOLDER]``; prints a table, writes figures and a plot.

Each part runs in a process of its own, one after the other, and takes its ratios within that run, since machines are
noisy; leave the machine alone meanwhile.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tests.benchmarks.workload import Figure, finish

PARTS = (
    "startup",
    "training",
    "encoders",
    "balance",
    "scaling",
    "engine",
    "streaming",
    "prediction",
    "serving",
    "extraction",
)


def measure() -> tuple[list[Figure], list[str]]:
    """Run all parts; return their figures, and the names of parts that failed."""
    console, figures, failed = Console(), [], []
    for part in PARTS:
        with console.status(f"Measuring {part}..."), tempfile.TemporaryDirectory() as folder:
            target = Path(folder, "figures.json")
            command = [sys.executable, "-m", f"tests.benchmarks.{part}", "--json", str(target)]
            begun = time.monotonic()
            done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, env=dict(os.environ))
            console.print(
                f"{part}: {'measured' if not done.returncode else 'failed'}, {time.monotonic() - begun:.0f} s"
            )
            if done.returncode:
                failed.append(part)
            else:
                figures += [Figure(**facts) for facts in json.loads(target.read_text())]
    return figures, failed


def draw(figures: Sequence[Figure], target: Path) -> None:
    """Draw how far each figure with a target is: right of the line is met."""
    from matplotlib.figure import Figure as Canvas

    rows = [figure for figure in figures if figure.target][::-1]
    parts = [f.target / f.value if f.at_most else f.value / f.target for f in rows]  # type: ignore[operator]
    canvas = Canvas(figsize=(9, 0.32 * len(rows) + 1.2), layout="constrained")
    axes = canvas.add_subplot()
    axes.barh([f.name for f in rows], parts, color=["tab:green" if part >= 1 else "tab:orange" for part in parts])
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_xlabel("times as good as its target")
    canvas.savefig(target, dpi=110)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("--out", type=Path, default=Path("benchmarks"))
    arguments = parser.parse_args()
    figures, failed = measure()
    arguments.out.mkdir(parents=True, exist_ok=True)
    draw(figures, arguments.out / "figures.png")
    finish(arguments.out / ("figures-incomplete.json" if failed else "figures.json"), figures)
    if failed:
        sys.exit(f"These parts failed, so their figures are missing: {', '.join(failed)}. Their errors are above.")


if __name__ == "__main__":
    main()
