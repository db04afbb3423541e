"""Runs a seed's training on plain gloo process groups of any size, without Ray: the same `fit`, in seconds."""

import atexit
import json
import os
import secrets
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from ada2i.data import manifest
from ada2i.data.entries import ShardEntry
from ada2i.data.manifest import open_features
from ada2i.jobs import code
from ada2i.loader.split_data import open_split
from ada2i.presets import resolve
from ada2i.training import distributed
from ada2i.training import fit as fitting
from ada2i.training.reporter import Reporter
from ada2i.training.sharding import node_of_ranks
from ada2i.training.step import StepReport, train_step, unwrap
from ada2i.training.task import Task

Job = dict[str, str | int | dict[str, object]]


def main(job: Job, rank: int, *, after_step: Callable[[int], None] = lambda _: None) -> None:
    """Train as one rank; rank 0 writes the final weights, every rank a digest of its replica after every step.

    Args:
        job: ``out``, ``features``, ``world``, ``overrides``, ``preset``; ``nodes`` among which the ranks are divided.
        rank: Which rank.
        after_step: Called after every step with its number, counted from 0 over the whole run.
    """
    world = int(str(job["world"]))
    torch.set_num_threads(1)
    if world > 1:
        store = Path(str(job["out"]), "store").as_uri()
        dist.init_process_group("gloo", store, rank=rank, world_size=world, timeout=timedelta(seconds=120))
    overrides = job["overrides"]
    assert isinstance(overrides, dict)
    config = resolve(preset=str(job.get("preset", "reference")), settings="demo", overrides=overrides)
    features = open_features(str(job["features"]))
    modalities = config.model.modalities
    attempt = distributed.from_rank_zero(secrets.randbits(62))
    local = world // int(str(job.get("nodes", 1)))
    nodes = node_of_ranks(rank % local)
    shared = {"part": (rank % local, local), "wait": distributed.barrier, "attempt": attempt}
    shared |= {"nodes": nodes, "node": nodes[rank]}
    reads = _watch_reads()
    shuffle_gib = config.training.shuffle_gib
    train, dev = (
        open_split(features, split, modalities, shuffle_gib=shuffle_gib, **shared)  # type: ignore[arg-type]
        for split in ("train", "dev")
    )
    seed_folder = Path(str(job["out"])).as_uri() + "/run"
    task = Task(config, features.info(), config.training.seeds[0], train, dev, seed_folder, torch.device("cpu"))
    digests = _watch_replicas(str(job["out"]), after_step)
    with code.named(code.digests(config.own_code)):
        fitting.fit(task, Reporter())
    Path(f"{job['out']}/replica-{rank}.json").write_text(json.dumps(digests))
    Path(f"{job['out']}/reads-{rank}.json").write_text(json.dumps(reads))
    if world > 1:
        leave_group()


def leave_group() -> None:
    """Destroy the process group and end the process after its exit handlers, without the interpreter's finalization.

    DistributedDataParallel's reducer keeps gloo's threads alive after ``destroy_process_group``. Such a thread may
    still release the last collective's tensors; it then needs the interpreter lock, and aborts the process when the
    interpreter is already being finalized.
    """
    dist.destroy_process_group()
    atexit._run_exitfuncs()  # they delete what streaming wrote
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _watch_reads() -> list[str]:
    """Record the name of each shard that is read as a whole."""
    names: list[str] = []
    read = manifest.read_shard_bytes

    def watched(features: manifest.FeatureSet, entry: ShardEntry) -> bytes:
        names.append(entry.name)
        return read(features, entry)

    patch.object(manifest, "read_shard_bytes", watched).start()
    return names


def _watch_replicas(out: str, after_step: Callable[[int], None]) -> list[str]:
    """Record each step's parameters, to the last bit, and keep the last step's on rank 0."""
    digests: list[str] = []

    def watched(network: torch.nn.Module, *rest: object, **more: object) -> StepReport:
        report = train_step(network, *rest, **more)  # type: ignore[arg-type]
        digests.append(replica_digest(network))
        if distributed.rank() == 0:
            state = {name: p.detach().clone() for name, p in unwrap(network).named_parameters()}
            save_file(state, f"{out}/weights.safetensors")
        after_step(more["key"].step)  # type: ignore[attr-defined]
        return report

    patch.object(fitting, "train_step", watched).start()
    return digests


def replica_digest(network: torch.nn.Module) -> str:
    """Return a digest of all parameters' bits."""
    import hashlib

    found = hashlib.sha256()
    for parameter in unwrap(network).parameters():
        found.update(parameter.detach().numpy().tobytes())
    return found.hexdigest()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1], "job.json").read_text()), int(sys.argv[2]))
