"""Training throughput at the published settings: ``python -m tests.benchmarks [--json FILE]``.

Each setting is run twice, alternating, in one process: with utterances laid end to end and masked, and on the padded
grid as the released code computes. Same model, same dialogues (lengths drawn as in the dataset); medians over steps.
"""

import argparse
import json
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from ada2i.batch import DialogueBatch, Layout
from ada2i.modalities import Modality
from ada2i.model.build import build_model
from ada2i.presets import resolve
from ada2i.training.step import StepKey, train_step

Widths = Mapping[Modality, int]
# Mean dialogue length, longest dialogue, classes, feature widths.
SETTINGS: Mapping[str, tuple[float, int, int, Widths]] = {
    "iemocap": (49.0, 110, 6, {"text": 768, "audio": 512, "visual": 1024}),
    "meld": (9.6, 33, 7, {"text": 768, "audio": 300, "visual": 342}),
}
STEPS = 8


def batch_of(name: str, dialogues: int, seed: int) -> DialogueBatch:
    """Return one global batch of random features with the dataset's dialogue lengths."""
    mean, longest, classes, widths = SETTINGS[name]
    random = np.random.RandomState(seed)
    lengths = tuple(int(n) for n in np.clip(random.gamma(4.0, mean / 4.0, dialogues), 1, longest))
    rows = sum(lengths)
    features = {m: torch.from_numpy(random.randn(rows, width).astype(np.float32)) for m, width in widths.items()}
    return DialogueBatch(
        features=features,
        present={m: torch.ones(rows, dtype=torch.bool) for m in widths},
        labels=torch.from_numpy(random.randint(0, classes, rows)),
        speakers=torch.zeros(rows, dtype=torch.int64),
        layout=Layout(lengths, max(lengths)),
        global_utterances=rows,
        global_dialogues=len(lengths),
    )


def measure(name: str) -> dict[str, float | str]:
    """Return utterances per second of both ways, and their ratio."""
    _, _, classes, widths = SETTINGS[name]
    rates: dict[bool, list[float]] = {True: [], False: []}
    setups = {}
    for padded in rates:
        fields = {"model.encoder.attend_to_padding": padded, "model.afw.average_padding": padded}
        config = resolve(preset="reference", settings=name, overrides=fields)
        model = build_model(config, widths=widths, classes=classes)
        setups[padded] = (config, model, torch.optim.Adam(model.parameters(), lr=1e-4, foreach=True))
    for step in range(STEPS + 2):
        for padded, (config, model, optimizer) in setups.items():
            batch = batch_of(name, config.training.batch_dialogues, step)
            started = time.perf_counter()
            train_step(model, batch, optimizer, key=StepKey(0, step), clip_norm=2.0, modulate=config.balance)
            rates[padded].append(batch.global_utterances / (time.perf_counter() - started))
    end_to_end, grid = (statistics.median(rates[padded][2:]) for padded in (False, True))  # the first steps warm up
    return {"settings": name, "end_to_end": end_to_end, "padded": grid, "ratio": end_to_end / grid}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("--json", type=Path)
    target = parser.parse_args().json
    rows = [measure(name) for name in SETTINGS]
    table = Table("settings", "end to end, utt/s", "padded, utt/s", "ratio")
    table.title = f"Training, float32, {torch.get_num_threads()} threads, noise and modulation on"
    for row in rows:
        table.add_row(str(row["settings"]), *(f"{row[key]:.1f}" for key in ("end_to_end", "padded", "ratio")))
    Console().print(table)
    if target is not None:
        target.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
