"""Workers change nothing but rounding, replicas stay equal to the last bit, resuming changes nothing at all."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ada2i.importers.demo import write_demo_corpus

TWENTY_STEPS = {
    "training.epochs": 2,
    "training.batch_dialogues": 7,
    "balance.method": "ada2i",
    "balance.start_epoch": 1,
}
NO_DROPOUT = {"model.encoder.dropout": 0.0, "model.afw.dropout": 0.0}
# The published rate: where a gradient is about as small as Adam's epsilon, a rounding difference becomes a step, and
# the gap between worker counts grows with the rate.
PUBLISHED_RATE = {"training.learning_rate": 1.7e-4}


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_demo_corpus(tmp_path_factory.mktemp("root").as_uri())


def train(
    out: Path, features: str, world: int, overrides: Mapping[str, object], preset: str = "reference", *, nodes: int = 1
) -> dict[str, torch.Tensor]:
    """Train on ``world`` ranks in fresh processes; return the weights after the last step."""
    out.mkdir(exist_ok=True)
    (out / "store").unlink(missing_ok=True)
    facts = {"out": str(out), "features": features, "world": world, "overrides": overrides, "preset": preset}
    (out / "job.json").write_text(json.dumps({**facts, "nodes": nodes}))
    command = [sys.executable, "-m", "tests.integration.ranks", str(out)]
    ranks = [subprocess.Popen([*command, str(rank)]) for rank in range(world)]
    assert [rank.wait(timeout=180) for rank in ranks] == [0] * world
    return load_file(out / "weights.safetensors")


def largest_gap(ours: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    gaps = []
    for name, tensor in ours.items():
        difference = (tensor - other[name]).abs()
        if name.endswith("attention_in.bias"):
            # Key biases have no gradient in exact arithmetic; what Adam makes of the rounding says nothing.
            queries, _, values = difference.chunk(3)
            difference = torch.cat([queries, values])
        gaps.append(difference.max().item())
    return max(gaps)


@pytest.mark.parametrize("padding", [True, False], ids=["padded as released", "masked"])
def test_workers_change_nothing_but_rounding(tmp_path: Path, features: str, *, padding: bool) -> None:
    overrides = TWENTY_STEPS | NO_DROPOUT | PUBLISHED_RATE
    overrides |= {"model.encoder.attend_to_padding": padding, "model.afw.average_padding": padding}
    one, two, four = (train(tmp_path / str(n), features, n, overrides) for n in (1, 2, 4))
    assert largest_gap(one, two) < 1e-5
    assert largest_gap(one, four) < 1e-5


@pytest.mark.smoke
def test_workers_change_nothing_but_rounding_in_the_corrected_preset(tmp_path: Path, features: str) -> None:
    overrides = TWENTY_STEPS | NO_DROPOUT | {"model.encoder.input_dropout": 0.0}
    one, two, four = (train(tmp_path / str(n), features, n, overrides, "corrected") for n in (1, 2, 4))
    assert largest_gap(one, two) < 1e-5
    assert largest_gap(one, four) < 1e-5


@pytest.mark.parametrize(
    ("preset", "variant"),
    [
        ("paper", {}),
        ("corrected", {"balance.noise": True}),
        ("reference", {"ablations.no_afw": True, "ablations.no_amw": True, "model.encoder.kind": "lstm"}),
    ],
)
def test_every_variant_trains_alike_on_two_ranks(
    tmp_path: Path, features: str, preset: str, variant: dict[str, object]
) -> None:
    """All parameters take part on every rank, and replicas stay equal."""
    weights = train(tmp_path, features, 2, {**TWENTY_STEPS, **variant}, preset)
    first, second = (json.loads((tmp_path / f"replica-{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_replicas_are_equal_after_every_step_with_dropout(tmp_path: Path, features: str) -> None:
    train(tmp_path, features, 2, dict(TWENTY_STEPS))
    first, second = (json.loads((tmp_path / f"replica-{rank}.json").read_text()) for rank in range(2))
    assert len(first) == 20
    assert len(set(first)) == 20
    assert first == second


@pytest.mark.parametrize(("preset", "world"), [("reference", 1), ("reference", 3), ("corrected", 2)])
def test_resumed_equals_uninterrupted_to_the_last_bit(tmp_path: Path, features: str, preset: str, world: int) -> None:
    three = {**TWENTY_STEPS, "training.epochs": 3}
    whole = train(tmp_path / "whole", features, world, three, preset)
    kill_after_epoch(tmp_path / "parts", features, world, epochs=3, killed_after=1, preset=preset)
    resumed = train(tmp_path / "parts", features, world, three, preset)
    assert len(json.loads((tmp_path / "parts" / "replica-0.json").read_text())) == 20  # of 30: the rest was resumed
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize(("first", "then"), [(2, 1), (2, 3), (1, 2)])
def test_other_workers_go_on_with_the_same_trajectory(tmp_path: Path, features: str, first: int, then: int) -> None:
    overrides = TWENTY_STEPS | NO_DROPOUT | PUBLISHED_RATE | {"resources.checkpoint_minutes": 0.0}
    whole = train(tmp_path / "whole", features, first, overrides)
    kill_after_epoch(tmp_path / "parts", features, first, epochs=2, killed_after=1, more=overrides)
    resumed = train(tmp_path / "parts", features, then, overrides)
    assert len(json.loads((tmp_path / "parts" / "replica-0.json").read_text())) < 20  # of 20: the rest was resumed
    assert largest_gap(whole, resumed) < 1e-5


def kill_after_epoch(
    out: Path,
    features: str,
    world: int,
    *,
    epochs: int,
    killed_after: int,
    preset: str = "reference",
    more: Mapping[str, object] | None = None,
) -> None:
    """Train, and kill all ranks with SIGKILL once a checkpoint is complete."""
    import time

    out.mkdir()
    overrides = {**(more or TWENTY_STEPS), "training.epochs": epochs}
    (out / "job.json").write_text(
        json.dumps({"out": str(out), "features": features, "world": world, "overrides": overrides, "preset": preset})
    )
    command = [sys.executable, "-m", "tests.integration.ranks", str(out)]
    ranks = [subprocess.Popen([*command, str(rank)]) for rank in range(world)]
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list((out / "run" / "checkpoints").glob("*/manifest.json")):
        time.sleep(0.005)
    for rank in ranks:
        rank.kill()
        rank.wait()
