"""Workers change nothing but rounding, whatever the balance method; replicas stay equal to the last bit."""

import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ada2i.config import REGRESSION_METHODS
from tests.unit.balance.runs import ACTIVE

WORLDS = (1, 2, 4)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of all methods on 1, 2 and 4 ranks; of 4 ranks, one has no dialogue of its own in some batches."""
    folder = tmp_path_factory.mktemp("methods")
    command = [sys.executable, "-m", "tests.integration.method_ranks", str(folder)]
    for world in WORLDS:
        ranks = [subprocess.Popen([*command, str(world), str(rank)]) for rank in range(world)]
        assert [rank.wait(timeout=180) for rank in ranks] == [0] * world
    return folder


@pytest.mark.parametrize(
    ("preset", "method"),
    [
        *product(["corrected", "reference"], ACTIVE),
        *product(["regression"], REGRESSION_METHODS),
        ("distilled", "unimodal"),
    ],
)
def test_workers_change_nothing_but_rounding(out: Path, preset: str, method: str) -> None:
    one, *others = (load_file(out / f"weights-{world}.safetensors") for world in WORLDS)
    names = [name for name in one if name.startswith(f"{preset}/{method}/")]
    assert names
    for name in names:
        for other in others:
            difference = (one[name] - other[name]).abs()
            if name.endswith("attention_in.bias"):  # its keys' third has no gradient but rounding
                queries, _, values = difference.chunk(3)
                difference = torch.cat([queries, values])
            assert difference.max() < 1e-5, name


@pytest.mark.parametrize("world", [2, 4])
def test_replicas_are_equal_to_the_last_bit(out: Path, world: int) -> None:
    digests = [(out / f"digests-{world}-{rank}").read_text() for rank in range(world)]
    assert len(set(digests)) == 1
