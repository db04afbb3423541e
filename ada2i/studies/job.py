"""A study as a Ray job: ``python -m ada2i.studies.job URI SUBMISSION``.

A seed of a run is one task, and so is the evaluation of a run whose seeds are done. What was killed is done again from
its newest checkpoint; a task that finds its result there does nothing.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ada2i import storage
from ada2i.jobs import driver, events
from ada2i.jobs.resources import check_resources
from ada2i.records import RunRequest, SeedResult, seed_uri
from ada2i.studies.request import StudyRequest
from ada2i.training.evaluate import evaluate_run
from ada2i.training.task import QuietReporter
from ada2i.training.worker import train_seeds

_RETRIES = 3  # of a task whose process dies

Failure = dict[str, str]


def train_seed(run_uri: str, seed: int, device: str) -> Failure | None:
    """Train one seed of a run; return the error that no new attempt can mend, if there is one."""
    request = RunRequest.load(storage.join(run_uri, "request.json"))
    torch.set_num_threads(max(1, int(request.config.resources.cpus_per_worker)))
    return train_seeds(request, run_uri, [seed], device=torch.device(device), part=(0, 1), reporter=QuietReporter())


def evaluate(run_uri: str) -> None:
    """Evaluate a run whose seeds are trained."""
    torch.set_num_threads(1)
    evaluate_run(run_uri)


def drive(uri: str, *, submission: str) -> None:
    """Run the job's side: have every run of the study trained and evaluated."""
    import ray

    from ada2i.jobs.environment import environment

    request = StudyRequest.load(storage.join(uri, "request.json"))
    ray.init()
    facts = environment(ray_job_id=submission)
    available = ray.cluster_resources()  # type: ignore[no-untyped-call]
    runs = [Run.open(run_uri, available) for run_uri in request.runs]
    for run in runs:
        storage.put(storage.join(run.uri, "environment.json"), facts)
    events.emit("planned", seeds=sum(len(run.left) for run in runs))
    for run in work(runs):
        events.emit("tested", run_id=run.request.run_id)


@dataclass
class Run:
    """One run of a study, and which of its seeds are not done."""

    uri: str
    request: RunRequest
    device: str
    left: set[int] = field(default_factory=set)

    @classmethod
    def open(cls, uri: str, available: dict[str, float]) -> "Run":
        """Read a run's request."""
        request = RunRequest.load(storage.join(uri, "request.json"))
        device = "cuda" if check_resources(request.config.resources, available) else "cpu"
        return cls(uri, request, device, set(request.config.training.seeds))

    @property
    def share(self) -> dict[str, Any]:
        """What a seed's task takes of the cluster."""
        return {"num_cpus": self.request.config.resources.cpus_per_worker, "num_gpus": int(self.device == "cuda")}


def work(runs: Sequence[Run]) -> Iterator[Run]:
    """Train all seeds of all runs as tasks; yield each run that was evaluated.

    A seed that diverges is told of, and its run is not evaluated; the others go on.
    """
    import ray

    train = ray.remote(max_retries=_RETRIES)(train_seed)
    test = ray.remote(num_cpus=1, max_retries=_RETRIES)(evaluate)
    busy: dict[Any, tuple[Run, int | None]] = {
        train.options(**run.share).remote(run.uri, seed, run.device): (run, seed)
        for run in runs
        for seed in run.request.config.training.seeds
    }
    while busy:
        (ready, *_), _ = ray.wait(list(busy), num_returns=1)
        run, seed = busy.pop(ready)
        failure = ray.get(ready)
        if seed is None:
            yield run
        elif _tell(run, seed, failure) and not run.left:
            busy[test.remote(run.uri)] = (run, None)


def _tell(run: Run, seed: int, failure: Failure | None) -> bool:
    """Tell how a seed ended; return whether it has a result."""
    if failure:
        events.emit("diverged", run_id=run.request.run_id, seed=seed, message=failure["message"])
        return False
    run.left.remove(seed)
    result = SeedResult.load(storage.join(seed_uri(run.uri, seed), "result.json"))
    events.emit(
        "trained",
        run_id=run.request.run_id,
        seed=seed,
        dev_weighted_f1=result.dev.weighted_f1,
        seconds=round(sum(record.seconds for record in result.history), 1),
    )
    return True


if __name__ == "__main__":
    sys.exit(driver.run(lambda: drive(sys.argv[1], submission=sys.argv[2]), sys.argv[1]))
