"""Training as a Ray job, from the caller's call down to the loop over seeds.

The path is ``launch`` (the caller) -> ``drive`` (the job's driver) -> ``train_group`` (Ray Train) -> ``work`` (each
rank) -> ``fit``. Caller and job share only the run's folder, so either may be killed and restarted: training resumes
from the newest complete checkpoint. Searches and studies also start their ranks with ``train_group``.
"""

import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any

from ada2i import storage
from ada2i.config import ResourceConfig
from ada2i.errors import Ada2iError, ConfigError, ConflictError, DivergenceError, PreemptedError
from ada2i.jobs import client, code, driver, events
from ada2i.jobs.cluster import cluster
from ada2i.jobs.resources import check_resources, machine, place
from ada2i.records import Failure, RunRequest
from ada2i.store import RunFolder

if TYPE_CHECKING:
    import torch
    from ray.train import ScalingConfig, UserCallback

    from ada2i.training.distributed import Place
    from ada2i.training.reporter import Reporter
    from ada2i.training.task import Task

log = logging.getLogger(__name__)

JOB = "ada2i.training.launch:drive"

Show = Callable[[str, str], AbstractContextManager[Callable[[events.Event | str], None]]]

# Ray reads these variables when a group is started, and passes them to its controller and workers.
_RAY_ENVIRONMENT = {
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",  # the dashboard's Train tab
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # how soon a lost worker and the end are detected
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "180",  # a busy machine needs more than the usual 60 s
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # `jobs.preemption` watches; Ray's watcher delays the first step
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # else each line is printed twice
    "RAY_DEDUP_LOGS": "0",  # else lines of several workers are lost
    "RAY_COLOR_PREFIX": "0",
}

# Right after the loss of a node Ray Train still counts it, and waits this long for workers that cannot start.
_ELASTIC_ENVIRONMENT = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60"}


def launch(job: client.Job, show: Show) -> None:
    """Train a prepared run as a Ray job and wait for its end; interrupting the wait stops the job.

    Args:
        job: The job of a run whose request is written.
        show: Called with the run's URI and the cluster's address; opens the listener of the job's events and log lines.

    Raises:
        UnreachableError: The cluster does not answer.
        JobError: The job failed; a new call resumes it.
        PreemptedError: The job was requested to leave, wrote a checkpoint and left; a new call resumes it.
        InputError: The job reports that the request cannot work, for example more workers than CPUs.
        DivergenceError: A loss or gradient was not finite.
    """
    if RunFolder(job.uri).is_trained():
        return
    with cluster() as ray, show(job.uri, ray.address) as on_event, client.stopping(job, ray.address):
        client.follow(client.submit(job, ray.address), job, address=ray.address, on_event=on_event)


def train_here(job: client.Job, show: Show) -> None:
    """Train a prepared run in this process as its only rank; the numbers are those of one worker on Ray, bit by bit.

    Args:
        job: The job of a run whose request is written.
        show: As in ``launch``; it gets an empty address.

    Raises:
        ResourceError: The config requests a GPU, but this machine has none.
        PreemptedError: SIGTERM came; the newest checkpoint is of the last step, and a new call resumes from it.
        DivergenceError: A loss or gradient was not finite.
    """
    from ada2i.devices import restored
    from ada2i.fast.threads import training_alone
    from ada2i.jobs import preemption
    from ada2i.training.reporter import EventReporter

    started, run = time.time(), RunFolder(job.uri)
    if run.is_trained():
        return
    request = RunRequest.load(run.request_uri, job.request)
    found = check_resources(request.config.resources, machine())
    origin = {"ray_job_id": "", "placement": found.facts}
    with show(job.uri, "") as on_event, training_alone(), restored(), preemption.listening_here():

        def report(kind: str, **facts: Any) -> None:
            on_event({"kind": kind, **facts})

        report("started", run_id=request.run_id, **found.facts)
        reporter = EventReporter(request.run_id, started, report)
        seeds = request.config.training.seeds
        failure = train_group(run, request, seeds, reporter, use_gpu=found.use_gpu, in_process=True, origin=origin)
    if failure is not None:
        raise failure.error()


def drive(run_uri: str, submission: str, digest: str) -> None:
    """Run the driver of the job: check the cluster, train on its workers, and raise their errors.

    Ray Train restarts lost workers itself, but not its controller: see ``another_attempt``.
    """
    started, run = time.time(), RunFolder(run_uri)
    with driver.report_errors(run_uri):
        request = RunRequest.load(run.request_uri, digest)
        code.check_here(request.own_code)
        resources, losses = request.config.resources, 0
        elastic = resources.min_workers is not None
        _set_environment(elastic=elastic)
        import ray
        from ray.exceptions import RayActorError

        from ada2i.jobs import preemption
        from ada2i.registry import exporter
        from ada2i.training.reporter import RayReporter

        ray.init()
        preemption.listen_as_driver()
        outcome: Failure | RayActorError | None
        folder = storage.join(run.uri, "ray", submission)  # of this job alone: another one may still be running
        try:
            while True:
                found = place(resources)
                events.emit("started", run_id=request.run_id, **found.facts)
                reporter = RayReporter(run_id=request.run_id, started=started)
                try:
                    seeds = request.config.training.seeds
                    outcome = train_group(
                        run,
                        request,
                        seeds,
                        reporter,
                        use_gpu=found.use_gpu,
                        workers=found.workers,
                        origin={"ray_job_id": submission, "placement": found.facts},
                        folder=folder,
                    )
                except RayActorError as problem:
                    outcome, losses = problem, losses + 1
                if not another_attempt(
                    outcome, losses, max_losses=resources.max_failures, leaving=preemption.requested()
                ):
                    break
                started = time.time()
        finally:
            _sweep(run, folder)
        exporter.ensure(run_uri.rpartition("/runs/")[0])
        if isinstance(outcome, Failure):
            raise outcome.error()
        if outcome is not None:
            raise outcome


def another_attempt(outcome: Failure | Exception | None, losses: int, *, max_losses: int, leaving: bool) -> bool:
    """Return whether the job makes another attempt at training, as a pure function.

    Args:
        outcome: The workers' return value, or the exception by which the controller was lost.
        losses: Number of lost controllers so far.
        max_losses: Number of controllers that may be lost.
        leaving: Whether the driver was requested to leave.
    """
    if leaving or outcome is None:
        return False
    if isinstance(outcome, Failure):
        if outcome.kind != PreemptedError.__name__:
            return False
        log.warning("%s It continues now.", outcome.message)
        return True
    if losses > max_losses:
        return False
    log.warning("Ray Train's controller was lost, and is restarted: %s", outcome)
    return True


def train_group(
    run: RunFolder,
    request: RunRequest,
    seeds: Sequence[int],
    reporter: "Reporter",
    *,
    use_gpu: bool,
    workers: int | None = None,
    in_process: bool = False,
    origin: Mapping[str, Any] | None = None,
    restarts: bool = True,
    folder: str | None = None,
    callbacks: "Sequence[UserCallback]" = (),
) -> Failure | None:
    """Train some seeds of a run on a group of DDP ranks, and wait for the end; only this function starts ranks.

    Args:
        run: The run's folder, or a trial's.
        request: Its request, which the ranks get from this process: others may write to the folder.
        seeds: Seeds of the run; one that has a result is skipped.
        reporter: Receives progress in each rank.
        use_gpu: Whether each rank has a GPU.
        workers: Number of ranks; by default the config's, or one.
        in_process: Whether one rank runs in this process, as in a Tune trial: it starts in 0.2 s, Ray Train in 10 s.
        origin: What the driver knows of the environment, for its record; None: no record is written.
        restarts: Whether Ray Train restarts lost workers, as often as the run's config allows.
        folder: URI for Ray Train's own state; by default ``ray`` in the run's folder.
        callbacks: Callbacks of Ray Train's controller.

    Returns:
        None, or why training ended early: an error that a new attempt cannot correct, or a preemption.

    Raises:
        RayError: Ray Train's controller was lost, a worker failed, or too many workers were lost.
    """
    resources = request.config.resources
    settings = {"run_uri": run.uri, "request": request, "seeds": seeds, "reporter": reporter}
    settings |= {"use_gpu": use_gpu, "origin": origin}
    workers = workers or resources.workers or 1
    if in_process and workers == 1:
        return work({**settings, "in_process": True})
    _set_environment(elastic=resources.min_workers is not None)
    from ray.train import FailureConfig, RunConfig

    from ada2i.jobs import ray_compat
    from ada2i.training.backend import OwnProcessGroup

    # Type checkers see Train's old interface, which lacks the controller's limit and takes other callbacks.
    failures = FailureConfig(resources.max_failures * restarts, controller_failure_limit=2)  # type: ignore[call-arg]
    folder = folder or storage.join(run.uri, "ray")
    where = str(storage.local_path(folder) or folder)  # Ray Train takes a path for a local folder
    trainer = ray_compat.trainer(
        work,
        train_loop_config=settings,
        scaling_config=_scaling(resources, workers, use_gpu=use_gpu),
        backend_config=OwnProcessGroup(),
        run_config=RunConfig(request.run_id, where, failure_config=failures, callbacks=list(callbacks)),  # type: ignore[arg-type]
    )
    outcome: Failure | None = trainer.fit().return_value
    return outcome


def _scaling(resources: ResourceConfig, workers: int, *, use_gpu: bool) -> "ScalingConfig":
    from ray.train import ScalingConfig

    gpus = {"GPU": resources.gpus_per_worker or 1} if use_gpu else {}
    return ScalingConfig(
        num_workers=(resources.min_workers, workers) if resources.min_workers else workers,  # type: ignore[arg-type]
        use_gpu=use_gpu,
        resources_per_worker={"CPU": resources.cpus_per_worker, **gpus},
    )


def work(settings: dict[str, Any]) -> Failure | None:
    """Train seeds as one rank; each rank of a group runs this.

    Args:
        settings: ``run_uri``, and ``request``, ``seeds``, ``reporter``, ``use_gpu``, ``in_process`` and ``origin`` of
            ``train_group``.

    Returns:
        None, or why training ended early; the same on all ranks.
    """
    import torch

    from ada2i import devices
    from ada2i.fast.allocator import keep_freed_memory
    from ada2i.jobs import logs, preemption
    from ada2i.training import distributed
    from ada2i.training.fit import fit

    request: RunRequest = settings["request"]
    resources = request.config.resources
    if settings.get("in_process"):
        place, device = distributed.Place(), torch.device("cuda" if settings["use_gpu"] else "cpu")
    else:
        place, device = _place_in_group()
        logs.configure(run_id=request.run_id, rank=place.rank)
    devices.prepare(device, deterministic=resources.deterministic, tf32=resources.tf32)
    torch.set_num_threads(max(1, int(resources.cpus_per_worker)))
    if resources.fast_cpu:
        keep_freed_memory()
    preemption.watch()
    backend = "nccl" if device.type == "cuda" else "gloo"
    group = distributed.process_group(place, backend=backend, lost=preemption.left)
    try:
        with code.named(request.own_code), group:
            _record_environment(RunFolder(settings["run_uri"]), settings.get("origin"))
            for task in _tasks(settings, place, device):
                try:
                    with devices.explained():
                        fit(task, settings["reporter"], leave=preemption.requested)
                except (ConfigError, ConflictError, DivergenceError, PreemptedError) as error:  # raised on all ranks
                    return Failure.of(error)
    finally:
        preemption.left()
    return None


def _tasks(settings: dict[str, Any], place: "Place", device: "torch.device") -> "Iterator[Task]":
    """Yield the tasks of the seeds without a result, the same on all ranks."""
    from ada2i.data.manifest import open_features
    from ada2i.loader.split_data import open_split
    from ada2i.training import distributed
    from ada2i.training.distillation import teacher_outputs
    from ada2i.training.sharding import node_of_ranks
    from ada2i.training.task import Task

    run, request = RunFolder(settings["run_uri"]), settings["request"]
    config, features = request.config, open_features(request.features.uri)
    nodes = node_of_ranks(place.local_rank)
    shared: dict[str, Any] = {
        "nodes": nodes,
        "node": nodes[place.rank],
        "part": (place.local_rank, place.local_world),
        "wait": distributed.barrier,
        "attempt": distributed.from_rank_zero(secrets.randbits(62)),
        "shuffle_gib": config.training.shuffle_gib,
        "targets": config.regression,
    }
    train, dev = (open_split(features, split, config.model.modalities, **shared) for split in ("train", "dev"))
    outputs = teacher_outputs(run.uri, request, train)
    for seed in settings["seeds"]:
        folder = run.seed(seed)
        # Rank 0 decides, so that no rank waits for one that skips the seed.
        if not distributed.from_rank_zero(int(folder.is_trained())):
            yield Task(config, request.features, seed, train, dev, folder.uri, device, outputs)


def _record_environment(run: RunFolder, origin: Mapping[str, Any] | None) -> None:
    """Write the ranks' machines and rank 0's packages into the run's folder; the newest attempt's are kept."""
    from ada2i.environment import environment, machine_facts
    from ada2i.training import distributed

    if origin is None:
        return
    machines = distributed.gathered(machine_facts())
    if distributed.rank() == 0:
        # A crash before this leaves the record of the attempt before, or none; the next attempt writes it again.
        storage.put(run.environment_uri, environment(origin, machines))


def _place_in_group() -> "tuple[Place, torch.device]":
    """Return this Ray Train worker's place in its group, and its device."""
    import ray.train
    import ray.util
    from ray.train.collective import broadcast_from_rank_zero
    from ray.train.torch import get_device

    from ada2i.training.distributed import Place

    context = ray.train.get_context()
    place = Place(
        rank=context.get_world_rank(),
        world=context.get_world_size(),
        local_rank=context.get_local_rank(),
        local_world=context.get_local_world_size(),
        host=str(ray.util.get_node_ip_address()),  # type: ignore[no-untyped-call]
        share=broadcast_from_rank_zero,
    )
    return place, get_device()


def _set_environment(*, elastic: bool) -> None:
    for name, value in {**_RAY_ENVIRONMENT, **(_ELASTIC_ENVIRONMENT if elastic else {})}.items():
        os.environ.setdefault(name, value)


def _sweep(run: RunFolder, folder: str) -> None:
    """Delete Ray Train's state of this job, and at the end of training that of jobs which were killed.

    A failure here must not hide how the job ended; the next job deletes the rest.
    """
    with suppress(Ada2iError):
        storage.delete_folder(storage.join(run.uri, "ray") if run.is_trained() else folder)
