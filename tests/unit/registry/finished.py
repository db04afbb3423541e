"""Runs as an evaluation leaves them, without having trained anything."""

import json
from functools import lru_cache

import pytest

from ada2i import storage
from ada2i.records import FolderManifest, RunResult, SeedResult, put_folder_file
from ada2i.registry.aliases import move
from ada2i.registry.versions import Version, register
from tests.runs import run_uri, seed_uri
from tests.unit.evaluation.runs import build_run

WEIGHTS = b"the weights of seed "


ENVIRONMENT = {
    "python": "3.11.2",
    "platform": "Linux-6.1",
    "cpus": 2,
    "packages": {"ada2i": "0.1.0", "torch": "2.10.0"},
}


def finished_run(root: str, run_id: str, seeds: tuple[int, ...] = (12, 13), *, synthetic: bool = False) -> RunResult:
    """Write the folder of an evaluated run; return its result."""
    uri = run_uri(root, run_id)
    made = _build(seeds, synthetic=synthetic)
    result = made.model_copy(
        update={"run_id": run_id, "run_uri": uri, "seeds": tuple(_with_checkpoint(uri, seed) for seed in made.seeds)}
    )
    for seed in seeds:
        storage.put(storage.join(seed_uri(uri, seed), "predictions.parquet"), f"predictions of {seed}".encode())
    for name in ("report.html", "README.md"):
        storage.put(storage.join(uri, name), f"{name} of {run_id}".encode())
    storage.put(storage.join(uri, "environment.json"), json.dumps(ENVIRONMENT).encode())
    storage.put(storage.join(uri, "result.json"), result.to_json())
    return result


@lru_cache
def _build(seeds: tuple[int, ...], *, synthetic: bool) -> RunResult:
    return build_run(seeds=seeds, epochs=1, synthetic=synthetic)


def registered(root: str, run_id: str, model: str | None = "ada2i") -> Version:
    """Write the folder of an evaluated run and register it."""
    return register(finished_run(root, run_id).run_uri, root=root, model=model)


def with_champion(root: str) -> str:
    """Register two versions, of which the champion is the second; return the root."""
    for name in ("run-a", "run-b"):
        registered(root, name)
    move(root, "ada2i", "champion", 1, expected=None, by="anna", reason="first")
    move(root, "ada2i", "champion", 2, expected=1, by="anna", reason="better")
    return root


def unfinished(root: str, run_id: str, at: str = "manifest.json") -> str:
    """Begin to register a run, but die at a write; return the run's URI."""
    uri = finished_run(root, run_id).run_uri
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "put_if_absent", Crash(at))
        with pytest.raises(KeyboardInterrupt, match="killed"):
            register(uri, root=root, model="ada2i")
    return uri


class Crash:
    """Storage whose conditional writes of one object kill the writer."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.put_if_absent = storage.put_if_absent

    def __call__(self, uri: str, data: bytes) -> bool:
        if self.name in uri:
            raise KeyboardInterrupt("killed")
        return self.put_if_absent(uri, data)


def _with_checkpoint(uri: str, seed: SeedResult) -> SeedResult:
    place = storage.join(seed_uri(uri, seed.seed), "checkpoints", "000000012")
    entry = put_folder_file(place, "weights.safetensors", WEIGHTS + str(seed.seed).encode())
    storage.put(storage.join(place, "manifest.json"), FolderManifest(files={"weights.safetensors": entry}).to_json())
    return seed.model_copy(update={"checkpoint_uri": place})
