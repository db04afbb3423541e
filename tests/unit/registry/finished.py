"""Runs as an evaluation leaves them, without having trained anything."""

from ada2i import storage
from ada2i.records import FolderManifest, RunResult, SeedResult, put_folder_file, run_uri, seed_uri
from tests.unit.evaluation.runs import build_run

WEIGHTS = b"the weights of seed "


def finished_run(root: str, run_id: str, seeds: tuple[int, ...] = (12, 13)) -> RunResult:
    """Write the folder of an evaluated run; return its result."""
    uri = run_uri(root, run_id)
    made = build_run(seeds=seeds, epochs=1)
    result = made.model_copy(
        update={"run_id": run_id, "run_uri": uri, "seeds": tuple(_with_checkpoint(uri, seed) for seed in made.seeds)}
    )
    for seed in seeds:
        storage.put(storage.join(seed_uri(uri, seed), "predictions.parquet"), f"predictions of {seed}".encode())
    for name in ("environment.json", "report.html", "README.md"):
        storage.put(storage.join(uri, name), f"{name} of {run_id}".encode())
    storage.put(storage.join(uri, "result.json"), result.to_json())
    return result


def _with_checkpoint(uri: str, seed: SeedResult) -> SeedResult:
    place = storage.join(seed_uri(uri, seed.seed), "checkpoints", "000000012")
    entry = put_folder_file(place, "weights.safetensors", WEIGHTS + str(seed.seed).encode())
    storage.put(storage.join(place, "manifest.json"), FolderManifest(files={"weights.safetensors": entry}).to_json())
    return seed.model_copy(update={"checkpoint_uri": place})
