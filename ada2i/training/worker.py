"""What each Ray worker runs: all seeds of a run, one after the other, in one process group."""

import secrets
from collections.abc import Callable, Sequence

import ray.train
import ray.train.torch
import ray.util
import torch
from ray.train.collective import broadcast_from_rank_zero

from ada2i import storage
from ada2i.data.manifest import open_features
from ada2i.errors import DivergenceError, PreemptedError
from ada2i.fast.allocator import keep_freed_memory
from ada2i.jobs import logs, preemption
from ada2i.loader.split_data import open_split
from ada2i.records import RunRequest, seed_uri
from ada2i.training import distributed
from ada2i.training.fit import fit
from ada2i.training.reporter import RayReporter
from ada2i.training.task import Reporter, Task


def work(settings: dict[str, str]) -> dict[str, str] | None:
    """Train every seed that has no result yet.

    Args:
        settings: ``run_uri``, and ``started``, the driver's start in seconds since the epoch.

    Returns:
        None, or how training ended before its end: an error that no new attempt can mend, or a preemption.
    """
    try:
        return _work(settings)
    finally:
        preemption.left()


def _work(settings: dict[str, str]) -> dict[str, str] | None:
    request = RunRequest.load(storage.join(settings["run_uri"], "request.json"))
    context = ray.train.get_context()
    logs.configure(run_id=request.run_id, rank=context.get_world_rank())
    torch.set_num_threads(max(1, int(request.config.resources.cpus_per_worker)))
    if request.config.resources.fast_cpu:
        keep_freed_memory()
    device = ray.train.torch.get_device()
    with distributed.process_group(
        backend="nccl" if device.type == "cuda" else "gloo",
        rank=context.get_world_rank(),
        world=context.get_world_size(),
        host=str(ray.util.get_node_ip_address()),  # type: ignore[no-untyped-call]
        share=broadcast_from_rank_zero,
    ):
        part = (context.get_local_rank(), context.get_local_world_size())
        reporter = RayReporter(run_id=request.run_id, started=float(settings["started"]))
        return train_seeds(
            request,
            settings["run_uri"],
            request.config.training.seeds,
            device=device,
            part=part,
            reporter=reporter,
            leave=preemption.asked,
        )


def train_seeds(
    request: RunRequest,
    run_uri: str,
    seeds: Sequence[int],
    *,
    device: torch.device,
    part: tuple[int, int],
    reporter: Reporter,
    leave: Callable[[], bool] = lambda: False,
) -> dict[str, str] | None:
    """Train those of some seeds that have no result yet; see ``work``.

    Args:
        request: What to train.
        run_uri: The run's folder.
        seeds: Seeds of the run.
        device: Where this rank computes.
        part: This rank's place among the ranks of its machine, and their number.
        reporter: Told how it goes.
        leave: Asked after every step whether this rank is to leave.
    """
    config, features = request.config, open_features(request.features.uri)
    attempt = distributed.from_rank_zero(secrets.randbits(62), device)
    train, dev = (
        open_split(
            features,
            split,
            config.model.modalities,
            shuffle_gib=config.training.shuffle_gib,
            part=part,
            wait=distributed.barrier,
            attempt=attempt,
        )
        for split in ("train", "dev")
    )
    for seed in seeds:
        uri = seed_uri(run_uri, seed)
        # Rank 0 decides, so that no rank waits for one that skips.
        if distributed.from_rank_zero(int(storage.exists(storage.join(uri, "result.json"))), device):
            continue
        try:
            fit(Task(config, request.features, seed, train, dev, uri, device), reporter, leave=leave)
        except (DivergenceError, PreemptedError) as error:  # the same on all ranks
            return {"kind": type(error).__name__, "message": error.message}
    return None
