"""A study as a Ray job: each seed of a run is one task, and so is the evaluation of a run whose seeds are trained.

After any kill, the next attempt resumes from the newest checkpoints; a task that finds its result does nothing.
"""

from collections import deque
from typing import Any

import torch

from ada2i import storage
from ada2i.errors import PreemptedError
from ada2i.jobs import code, driver, events, preemption
from ada2i.jobs.fanout import Call, run_tasks, start_workers
from ada2i.jobs.resources import Placement, fitting, place
from ada2i.records import Failure
from ada2i.store import RunFolder
from ada2i.studies.request import StudyRequest, request_of
from ada2i.training.evaluate import evaluate_run
from ada2i.training.launch import train_group
from ada2i.training.reporter import Reporter

Origin = dict[str, Any]  # what the driver knows of the environment


class Worker:
    """Trains seeds and evaluates runs, one task at a time."""

    def train(
        self, run_uri: str, seed: int, use_gpu: bool, origin: Origin | None = None
    ) -> tuple[str, int, Failure | None]:
        """Train one seed of a run; return the run, the seed and an error that no new attempt can correct, or None.

        Raises:
            PreemptedError: This worker was requested to leave; the newest checkpoint is of its last step.
        """
        run = RunFolder(run_uri)
        failure = train_group(run, request_of(run), [seed], Reporter(), use_gpu=use_gpu, in_process=True, origin=origin)
        if failure is not None and failure.kind == PreemptedError.__name__:
            raise failure.error()
        return run_uri, seed, failure

    def evaluate(self, run_uri: str) -> str:
        """Evaluate a run whose seeds are trained, and return it."""
        torch.set_num_threads(1)
        with code.named(request_of(RunFolder(run_uri)).own_code):
            evaluate_run(run_uri)
        return run_uri


def drive(uri: str, submission: str, request: str) -> None:
    """Run the driver of the job: train and evaluate every run of the study.

    A seed that diverges is reported, and its run is not evaluated; the other runs continue.
    """
    with driver.report_errors(uri):
        import ray

        study = StudyRequest.load(storage.join(uri, "request.json"), request)
        ray.init()
        preemption.listen_as_driver()
        calls, left, places = deque[Call](), dict[str, set[int]](), list[Placement]()
        for run in map(RunFolder, study.runs):
            config = request_of(run).config
            found = place(config.resources)
            origin = {"ray_job_id": submission, "placement": found.facts}
            calls.extend(("train", (run.uri, seed, found.use_gpu, origin)) for seed in config.training.seeds)
            left[run.uri] = set(config.training.seeds)
            places.append(found)
        events.emit("planned", seeds=len(calls))
        cpus, gpus = max(each.cpus for each in places), max(each.gpus for each in places)
        available = ray.cluster_resources()  # type: ignore[no-untyped-call]
        workers = min(len(calls), fitting(available, cpus=cpus, gpus=gpus))
        pool = start_workers(Worker, (), workers=workers, cpus=cpus, gpus=gpus)
        for result in run_tasks(pool, calls, last=True):
            if isinstance(result, str):
                events.emit("tested", run_id=storage.name_of(result))
            elif _report_seed(*result):
                run_uri, seed, _ = result
                left[run_uri].remove(seed)
                if not left[run_uri]:
                    calls.append(("evaluate", (run_uri,)))


def _report_seed(run_uri: str, seed: int, failure: Failure | None) -> bool:
    """Report the end of a seed's training; return whether it has a result."""
    run_id = storage.name_of(run_uri)
    if failure is not None:
        events.emit("diverged", run_id=run_id, seed=seed, message=failure.message)
        return False
    result = RunFolder(run_uri).seed(seed).result()
    seconds = round(sum(record.seconds for record in result.history), 1)
    events.emit("trained", run_id=run_id, seed=seed, dev_weighted_f1=result.dev.weighted_f1, seconds=seconds)
    return True
