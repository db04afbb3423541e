"""The one way to start training: a Ray job whose driver runs a TorchTrainer.

``launch`` is the caller's side: it submits the job, or attaches to the attempt that is still running, and follows it.
``drive`` is the job's side. They share nothing but the run's folder, so either may die and be started again: training
resumes from the newest complete checkpoint.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from ada2i import errors, storage
from ada2i.config import ResourceConfig
from ada2i.jobs import client, driver, events
from ada2i.jobs.resources import check_resources
from ada2i.records import RunRequest, seed_uri

Failure = dict[str, str]  # `kind`, the name of an error of ours, and `message`

log = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
_REPLACEMENT_SECONDS = 30.0

# Read by Ray in the driver, from where it reaches controller and workers.
_DRIVER_ENVIRONMENT = {
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",  # the dashboard's Train tab
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # how soon a lost worker and the end are seen
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "180",  # a busy machine needs more than the usual 60 s
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # nobody asks it, and its process delays the first step
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # else each line comes twice
    "RAY_DEDUP_LOGS": "0",  # else lines of several workers go missing
    "RAY_COLOR_PREFIX": "0",
}

# Right after a node's loss Ray Train still counts on it, and would wait as long for workers that cannot come.
_SHRINKING_ENVIRONMENT = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60"}


def launch(run_uri: str, *, address: str, on_event: Callable[[events.Event | str], None]) -> None:
    """Train a prepared run as a Ray job and wait for its end; see ``jobs.client.run``.

    Args:
        run_uri: A run with its ``request.json``.
        address: URL of the cluster's Jobs API.
        on_event: Called with each event, and with each other line of the job's log.

    Raises:
        UnreachableError: The cluster does not answer.
        JobError: The job failed; a new call resumes it.
        PreemptedError: The job was told to stop, wrote a checkpoint and did; a new call resumes it.
        InputError: The job says that the request cannot work, for example more workers than processors.
        DivergenceError: A loss or gradient was not finite.
    """
    if not is_trained(run_uri):
        client.run(client.Job("ada2i.training.launch", run_uri), address=address, on_event=on_event)


def is_trained(run_uri: str) -> bool:
    """Tell whether a run has nothing left to train."""
    request = RunRequest.load(storage.join(run_uri, "request.json"))
    results = [storage.join(seed_uri(run_uri, seed), "result.json") for seed in request.config.training.seeds]
    return all(storage.exists(result) for result in results)


def drive(run_uri: str, *, submission: str, started: float) -> None:
    """Run the job's side: check the cluster, train on its workers, and raise what they raise."""
    request = RunRequest.load(storage.join(run_uri, "request.json"))
    shrinks = _SHRINKING_ENVIRONMENT if request.config.resources.min_workers else {}
    for name, value in {**_DRIVER_ENVIRONMENT, **shrinks}.items():
        os.environ.setdefault(name, value)
    import ray

    from ada2i.jobs import preemption
    from ada2i.jobs.environment import environment
    from ada2i.registry import exporter

    ray.init()
    preemption.listen_as_driver()
    storage.put(storage.join(run_uri, "environment.json"), environment(ray_job_id=submission))
    try:
        failure = _train_through_losses(request, run_uri, started=started)
    finally:
        _sweep(request, run_uri)
    exporter.ensure(run_uri.rpartition("/runs/")[0])
    if failure:
        raise getattr(errors, failure["kind"])(failure["message"])


def _train_through_losses(request: RunRequest, run_uri: str, *, started: float) -> Failure | None:
    """Return what the workers return; go on after the loss of the controller, and after a preemption.

    Losses of workers are Ray Train's to mend, but it never restarts its own controller.
    """
    import ray
    from ray.exceptions import RayActorError

    from ada2i.jobs import preemption

    resources, losses = request.config.resources, 0
    while True:
        use_gpu = _wait_for_resources(resources, ray.cluster_resources)
        device = "cuda" if use_gpu else "cpu"
        events.emit("started", run_id=request.run_id, workers=resources.workers, device=device)
        try:
            failure = _train(request, run_uri, use_gpu=use_gpu, started=started)
        except RayActorError as problem:
            losses += 1
            if losses > resources.max_failures or preemption.asked():
                raise
            log.warning("Ray Train's controller was lost, and is started again: %s", problem)
            started = time.time()
            continue
        if failure is None or failure["kind"] != errors.PreemptedError.__name__ or preemption.asked():
            return failure
        log.warning("%s It does so now.", failure["message"])
        started = time.time()


def _sweep(request: RunRequest, run_uri: str) -> None:
    """Delete what nobody needs once a job ends: Ray Train's own markers, and what killed attempts were writing."""
    with suppress(errors.Ada2iError):  # whatever ended the job is worth more; the next one sweeps
        storage.delete_folder(_ray_folder(run_uri))
        for seed in request.config.training.seeds:
            storage.delete_partials(seed_uri(run_uri, seed), older_than_s=0)


def _wait_for_resources(resources: ResourceConfig, available: Callable[[], Mapping[str, float]]) -> bool:
    """Tell whether to train on GPUs; a node that is being replaced has some time to come back."""
    deadline = time.monotonic() + _REPLACEMENT_SECONDS
    while True:
        try:
            return check_resources(resources, available())
        except errors.ResourceError:
            if time.monotonic() > deadline:
                raise
        time.sleep(_POLL_SECONDS)


def _train(request: RunRequest, run_uri: str, *, use_gpu: bool, started: float) -> Failure | None:
    """Return what the workers return."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.backend import Backend
    from ray.train.torch import TorchConfig, TorchTrainer

    from ada2i.jobs import preemption
    from ada2i.training.worker import work

    class Listening(Backend):
        """Has the workers' main threads, beside which training goes on, learn who must leave."""

        def on_training_start(self, worker_group: Any, *_: Any) -> None:
            worker_group.execute(preemption.listen_as_worker)

        def on_shutdown(self, worker_group: Any, *_: Any) -> None:
            # Of a group that lost a worker the first call fails, and nobody waits; of one that is done it ends at once.
            worker_group.execute(preemption.ask)
            worker_group.execute(preemption.wait_until_left)

    class OwnProcessGroup(TorchConfig):
        """The workers join their process group themselves, on their nodes' own addresses."""

        backend_cls = Listening

    resources, least = request.config.resources, request.config.resources.min_workers
    place = _ray_folder(run_uri)
    # Type checkers see Train's old interface, which knows neither what workers return nor the controller's limit.
    trainer = TorchTrainer(
        work,  # type: ignore[arg-type]
        train_loop_config={"run_uri": run_uri, "started": str(started)},
        scaling_config=ScalingConfig(
            num_workers=(least, resources.workers) if least else resources.workers,  # type: ignore[arg-type]
            use_gpu=use_gpu,
            resources_per_worker={"CPU": resources.cpus_per_worker} | ({"GPU": 1} if use_gpu else {}),
        ),
        torch_config=OwnProcessGroup(),
        run_config=RunConfig(
            name=request.run_id,
            storage_path=str(storage.local_path(place) or place),
            failure_config=FailureConfig(  # type: ignore[call-arg]
                max_failures=resources.max_failures, controller_failure_limit=2
            ),
        ),
    )
    return trainer.fit().return_value  # type: ignore[attr-defined, no-any-return]


def _ray_folder(run_uri: str) -> str:
    return storage.join(run_uri, "ray")


if __name__ == "__main__":
    begun = time.time()
    sys.exit(driver.run(lambda: drive(sys.argv[1], submission=sys.argv[2], started=begun), sys.argv[1]))
