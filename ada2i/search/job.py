"""A search as a Ray job: ``python -m ada2i.search.job URI SUBMISSION``.

Ray Tune places the trials and stops them by ASHA. Its own state is pickled, so it is written beside the search, never
read, and deleted in the end: what the search knows is in its trials' records, which are told to a new scheduler.
"""

import os
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from ada2i import storage
from ada2i.errors import Ada2iError, DivergenceError
from ada2i.jobs import driver, events
from ada2i.jobs.resources import check_resources
from ada2i.search.records import SearchResult
from ada2i.search.request import RESULT, SearchRequest, at_a_time, finalists, winner
from ada2i.search.trials import Finals, Job, TrialReport, Trials, TrialSource
from ada2i.search.worker import train

_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # what trials tell is in their records
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # nobody reads its state
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_COLOR_PREFIX": "0",
}


def drive(uri: str, *, submission: str) -> None:
    """Run the job's side: the trials, then the finals, then the result."""
    os.environ.update(_SETTINGS)
    import ray

    from ada2i.jobs.environment import environment

    request = SearchRequest.load(storage.join(uri, "request.json"))
    ray.init()
    available = ray.cluster_resources()  # type: ignore[no-untyped-call]
    use_gpu = check_resources(request.run.config.resources, available)
    crew = TuneRunner(uri, request, use_gpu=use_gpu, concurrent=at_a_time(request, available, use_gpu=use_gpu))
    trials = Trials.open(uri, request)
    events.emit("searching", trials=request.options.trials, done=len(trials.records), concurrent=crew.concurrent)
    crew.work(trials, trials.left, asha(request, trials))
    trials.sweep()
    chosen = finalists(trials.records, request.options.finalists)
    finals = Finals.open(uri, request, chosen)
    facts = environment(ray_job_id=submission)
    for run in finals.runs.values():
        storage.put(storage.join(run, "environment.json"), facts)
    left = len(finals.left)
    events.emit("finals", configs=len(finals.runs), seeds=len(finals.seeds), left=left)
    crew.work(finals, left, FIFOScheduler())  # type: ignore[no-untyped-call]
    storage.delete_folder(crew.place)  # before the result, after which no attempt comes back
    _conclude(uri, request, trials, finals)


def _conclude(uri: str, request: SearchRequest, trials: Trials, finals: Finals) -> None:
    found = finals.finals()
    best = winner(found)
    if best is None:
        raise DivergenceError(
            f"One config of {uri} must train on all seeds, but none did. {found[0].problem} Lower the learning rates "
            "of the space."
        )
    result = SearchResult(
        search_id=request.search_id,
        features=request.run.features,
        config=request.run.config,
        space=request.space,
        trials=tuple(trials.records[number] for number in sorted(trials.records)),
        finals=found,
        winner=best.trial,
        run_id=best.run_id,
    )
    storage.put(storage.join(uri, RESULT), result.stored())


def asha(request: SearchRequest, trials: Trials) -> TrialScheduler:
    """Return ASHA, told of the trials that have ended."""
    epochs = request.run.config.training.epochs
    scheduler = AsyncHyperBandScheduler(
        time_attr="epoch",
        metric="score",
        mode="max",
        max_t=max(epochs - 1, request.grace),  # who comes to the last epoch is let to end
        grace_period=request.grace,
        reduction_factor=request.options.reduction,
        stop_last_trials=False,
    )
    for number, record in trials.records.items():
        past: Any = SimpleNamespace(trial_id=f"past-{number}")
        scheduler.on_trial_add(None, past)  # type: ignore[arg-type]
        for epoch in range(1, len(record.curve) + 1):
            result = {"epoch": epoch, "score": max(record.curve[:epoch])}
            scheduler.on_trial_result(None, past, result)  # type: ignore[arg-type]
    return scheduler


class TuneRunner:
    """Ray Tune, as it is used here: it trains what a desk hands out."""

    def __init__(self, uri: str, request: SearchRequest, *, use_gpu: bool, concurrent: int) -> None:
        self.place = storage.join(uri, "ray")
        self.concurrent = concurrent
        self.device = "cuda" if use_gpu else "cpu"
        resources = request.run.config.resources
        worker = {"CPU": resources.cpus_per_worker} | ({"GPU": 1.0} if use_gpu else {})
        self.bundles = [worker] * resources.workers
        self.max_failures = resources.max_failures

    def work(self, desk: TrialSource, jobs: int, scheduler: TrialScheduler) -> None:
        """Train all that a desk has, so many at a time."""
        if not jobs:
            return
        ears = TrialCallback(desk)
        tune.Tuner(
            tune.with_resources(train, tune.PlacementGroupFactory(self.bundles)),
            tune_config=tune.TuneConfig(
                search_alg=TrialSearcher(desk, self.device),
                scheduler=scheduler,
                num_samples=jobs,
                max_concurrent_trials=self.concurrent,
                reuse_actors=True,  # a new process imports torch anew
            ),
            run_config=tune.RunConfig(
                name=type(desk).__name__.lower(),
                storage_path=str(storage.local_path(self.place) or self.place),
                failure_config=tune.FailureConfig(max_failures=self.max_failures),
                callbacks=[ears],
                stop=StopOnError(ears),
                verbose=0,
            ),
        ).fit()
        if ears.problem is not None:
            raise ears.problem


class TrialSearcher(Searcher):
    """Hands Ray Tune the jobs of a desk."""

    def __init__(self, desk: TrialSource, device: str) -> None:
        super().__init__()
        self.desk = desk
        self.device = device

    def suggest(self, trial_id: str) -> Any:  # noqa: ARG002
        """Return the next job's settings."""
        job = self.desk.draw()
        return Searcher.FINISHED if job is None else {"job": job.model_dump(), "device": self.device}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Do nothing: the desk hears of it."""

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the desk's records are what is known."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""


class TrialCallback(tune.Callback):
    """Tells a desk what Ray Tune hears; a problem of the desk's is kept, since Tune would blame the trial for it."""

    def __init__(self, desk: TrialSource) -> None:
        self.desk = desk
        self.problem: Ada2iError | None = None

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any) -> None:  # noqa: ARG002
        """Take a report."""
        told = {name: result[name] for name in TrialReport.model_fields if name in result}
        if "epoch" in told:  # not so in the mark of the end
            self._tell(self.desk.heard, _job(trial), TrialReport.model_validate(told))

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:  # noqa: ARG002
        """Take the end."""
        self._tell(self.desk.ended, _job(trial))

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:  # noqa: ARG002
        """Take the end after too many failures."""
        told = str(trial.get_error() or "it does not say why").strip().splitlines()
        self._tell(self.desk.broke, _job(trial), told[-1][:300])

    def _tell(self, call: Callable[..., None], *facts: Any) -> None:
        if self.problem is None:
            try:
                call(*facts)
            except Ada2iError as problem:
                self.problem = problem


class StopOnError(tune.Stopper):
    """Ends everything once there is a problem."""

    def __init__(self, ears: TrialCallback) -> None:
        self.ears = ears

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002
        """Stop no single trial."""
        return False

    def stop_all(self) -> bool:
        """Tell whether there is a problem."""
        return self.ears.problem is not None


def _job(trial: Any) -> Job:
    return Job.model_validate(trial.config["job"])


if __name__ == "__main__":
    sys.exit(driver.run(lambda: drive(sys.argv[1], submission=sys.argv[2]), sys.argv[1]))
