"""Kills a training at random points, again and again, and compares its end with that of an undisturbed one.

``python -m tests.faults.soak --kills 20 --json FILE``. Ranks are plain processes in a gloo group, without Ray. A kill
takes one rank or all of them, in the middle of a step, of an epoch's end or of a checkpoint that is being written.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ada2i.importers.demo import write_demo_corpus
from ada2i.records import SeedResult
from tests.faults.processes import FORKSERVER
from tests.integration import ranks

WORLD = 2
STEPS = 40  # 4 epochs of 10
SETTINGS: Mapping[str, Any] = {
    "training.epochs": 4,
    "training.early_stopping_epochs": 4,
    "training.batch_dialogues": 7,
    "balance.method": "ada2i",
    "balance.start_epoch": 2,
}
MINUTES = (0.0, 0.005, 5.0)  # a checkpoint at every step, several times a second, at the first epoch's end alone
TIMEOUT = 120.0


def soak(folder: Path, *, kills: int, seed: int = 0) -> dict[str, Any]:
    """Train undisturbed, then with kills; return what differed, and what was left behind.

    Args:
        folder: An empty folder.
        kills: How often to kill.
        seed: Of the points of the kills.
    """
    features = write_demo_corpus((folder / "store").as_uri())
    draw, begun = random.Random(seed), time.monotonic()
    run(folder / "undisturbed", features, minutes=5.0)
    points = sorted(draw.randrange(STEPS) for _ in range(kills))
    log = []
    for step in points:
        victims = draw.choice([[0], [1], [0, 1]])
        minutes, delay = draw.choice(MINUTES), draw.uniform(0.0, 0.2)
        hit = run(folder / "killed", features, minutes=minutes, kill=(step, delay, victims))
        log.append({"step": step, "delay_s": round(delay, 3), "ranks": victims, "hit": hit, "minutes": minutes})
    run(folder / "killed", features, minutes=5.0)
    return {
        "kills": log,
        "differences": differences(folder / "undisturbed" / "run", folder / "killed" / "run"),
        "left_behind": left_behind(folder / "undisturbed" / "run", folder / "killed" / "run"),
        "seconds": round(time.monotonic() - begun, 1),
    }


def run(out: Path, features: str, *, minutes: float, kill: tuple[int, float, Sequence[int]] | None = None) -> bool:
    """Train until the end, or until a step and some seconds, when some ranks are killed and the others find out.

    Returns:
        Whether a kill found its ranks alive; one at the very end may come too late.
    """
    out.mkdir(exist_ok=True)
    (out / "store").unlink(missing_ok=True)
    overrides: dict[str, object] = {**SETTINGS, "resources.checkpoint_minutes": minutes}
    job: ranks.Job = {"out": str(out), "features": features, "world": WORLD, "overrides": overrides}
    newest = FORKSERVER.Value("i", -1)
    started = [FORKSERVER.Process(target=work, args=(job, rank, newest)) for rank in range(WORLD)]
    for process in started:
        process.start()
    hit = False
    if kill is not None:
        step, delay, victims = kill
        wait_for(step, newest, started)
        time.sleep(delay)
        hit = all(started[rank].is_alive() for rank in victims)
        for rank in victims:
            started[rank].kill()
    for process in started:
        process.join(TIMEOUT)
        process.kill()  # nothing where it ended
        process.join()
    if kill is None and any(process.exitcode != 0 for process in started):
        raise RuntimeError(f"Ranks must end with code 0, but ended with {[p.exitcode for p in started]}.")
    return hit


def work(job: ranks.Job, rank: int, newest: Any) -> None:
    """Be one rank; what is lost with a neighbour is said by its absence."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)

    def count(step: int) -> None:
        newest.value = max(newest.value, step)

    ranks.main(job, rank, after_step=count)


def wait_for(step: int, newest: Any, started: Sequence[Any]) -> None:
    """Wait until a step is done, or a rank has ended."""
    deadline = time.monotonic() + TIMEOUT
    while newest.value < step and all(process.is_alive() for process in started) and time.monotonic() < deadline:
        time.sleep(0.002)


def differences(undisturbed: Path, killed: Path) -> list[str]:
    """Return the tensors, epochs and choices in which two finished seeds differ."""
    found = []
    for name in ("checkpoints", "best"):
        ours, other = (
            load_file(next(newest(run / name).glob("*weights.safetensors"))) for run in (killed, undisturbed)
        )
        found += [f"{name}/{key}" for key in other if not torch.equal(ours[key], other[key])]
    ends = [SeedResult.load((run / "result.json").as_uri()) for run in (killed, undisturbed)]
    histories = [[r.model_dump(exclude={"seconds", "utterances_per_second"}) for r in end.history] for end in ends]
    found += [f"epoch {ours['epoch']}" for ours, other in zip(*histories, strict=True) if ours != other]
    return found + ([] if ends[0].best_epoch == ends[1].best_epoch else ["best epoch"])


def left_behind(undisturbed: Path, killed: Path) -> list[str]:
    """Return the files that only a disturbed run has, or lacks."""
    whole, other = (
        {re.sub(r"(^|/)[0-9a-f]{16}-", r"\1", str(path.relative_to(run))) for path in run.rglob("*")}
        for run in (undisturbed, killed)
    )
    return sorted(name for name in whole ^ other if not name.startswith("attempts/"))  # one for each attempt


def newest(base: Path) -> Path:
    """Return the newest checkpoint."""
    return max(base.iterdir())


def main(arguments: Sequence[str]) -> int:
    """Run a soak from the command line; the exit code says whether it found anything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="ada2i-soak-"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        found = soak(folder, kills=chosen.kills, seed=chosen.seed)
    finally:
        shutil.rmtree(folder)
    text = json.dumps(found, indent=1) + "\n"
    chosen.json.write_text(text) if chosen.json else sys.stdout.write(text)
    return int(bool(found["differences"] or found["left_behind"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
