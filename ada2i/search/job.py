"""A search as a Ray job.

Ray Tune places the trials, and ASHA stops them. Tune pickles its own state; that state is written, never read, and
deleted at the end. The search's state is in the records of its trials, from which each new scheduler is initialised.
"""

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from ada2i import storage
from ada2i.errors import Ada2iError, DivergenceError, PreemptedError
from ada2i.jobs import driver, events, preemption
from ada2i.jobs.resources import Placement, place
from ada2i.search.records import SearchResult, score_of
from ada2i.search.request import REQUEST, RESULT, SearchRequest, at_a_time, finalists, winner
from ada2i.search.trials import Finals, TrialJob, TrialReport, Trials, TrialSource
from ada2i.search.worker import train

_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the trials' records hold the reports
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # its state is never read
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_COLOR_PREFIX": "0",
}


def drive(uri: str, submission: str, digest: str) -> None:
    """Run the driver of the job: the trials, then the finals, then the result."""
    with driver.report_errors(uri):
        os.environ.update(_SETTINGS)
        import ray

        request = SearchRequest.load(storage.join(uri, REQUEST), digest)
        ray.init()
        preemption.listen_as_driver()
        found = place(request.run.config.resources)
        concurrent = at_a_time(request, ray.cluster_resources(), gpus=found.gpus)  # type: ignore[no-untyped-call]
        origin = {"ray_job_id": submission, "placement": found.facts}
        runner = TuneRunner(uri, request, found, concurrent=concurrent, origin=origin)
        trials = Trials.open(uri, request)
        on = {"device": found.device, "reason": found.reason}
        events.emit("searching", trials=request.options.trials, done=len(trials.records), concurrent=concurrent, **on)
        runner.run(trials, trials.left, asha(request, trials))
        trials.sweep()
        finals = Finals.open(uri, request, finalists(trials.records, request.options.finalists))
        left = len(finals.left)
        events.emit("finals", configs=len(finals.runs), seeds=len(finals.seeds), left=left)
        runner.run(finals, left, FIFOScheduler())  # type: ignore[no-untyped-call]
        storage.delete_folder(runner.folder)  # before the result, after which there is no further attempt
        _write_result(uri, request, trials, finals)


def _write_result(uri: str, request: SearchRequest, trials: Trials, finals: Finals) -> None:
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
    """Return ASHA, initialised with the results of the trials that have ended."""
    epochs, selection = request.run.config.training.epochs, request.run.config.training.selection
    scheduler = AsyncHyperBandScheduler(
        time_attr="epoch",
        metric="score",
        mode="max",
        max_t=max(epochs - 1, request.grace),  # a trial that reaches the last epoch may finish it
        grace_period=request.grace,
        reduction_factor=request.options.reduction,
        stop_last_trials=False,
    )
    for number, record in trials.records.items():
        past: Any = SimpleNamespace(trial_id=f"past-{number}")
        scheduler.on_trial_add(None, past)  # type: ignore[arg-type]
        for epoch in range(1, len(record.curve) + 1):
            result = {"epoch": epoch, "score": score_of(record.curve[:epoch], selection)}
            scheduler.on_trial_result(None, past, result)  # type: ignore[arg-type]
    return scheduler


class TuneRunner:
    """Runs the jobs of a trial source as trials of Ray Tune."""

    def __init__(
        self, uri: str, request: SearchRequest, found: Placement, *, concurrent: int, origin: dict[str, Any]
    ) -> None:
        self.folder = storage.join(uri, "ray")
        self.concurrent = concurrent
        self.settings = {"use_gpu": found.use_gpu, "folder": self.folder, "origin": origin}
        resources = request.run.config.resources
        rank = {"CPU": found.cpus} | ({"GPU": found.gpus} if found.gpus else {})
        # A single rank runs in the trial's own process. Ray Train places several ranks itself, so such a trial needs no
        # resources; but Tune refuses a trial without any, so it gets some memory.
        self.in_process = found.workers == 1
        self.resources = rank if self.in_process else {"memory": float(1 << 20)}
        self.max_failures = resources.max_failures

    def run(self, source: TrialSource, jobs: int, scheduler: TrialScheduler) -> None:
        """Train all jobs of a source, at most ``concurrent`` at the same time.

        Raises:
            PreemptedError: The search was requested to leave; its trials wrote checkpoints.
            Ada2iError: The source raised it.
        """
        if not jobs:
            return
        callback = TrialCallback(source)
        tune.Tuner(
            tune.with_resources(train, tune.PlacementGroupFactory([self.resources])),
            tune_config=tune.TuneConfig(
                search_alg=TrialSearcher(source, self.settings),
                scheduler=scheduler,
                num_samples=jobs,
                max_concurrent_trials=self.concurrent,
                # A new process must import torch again; but Tune can only kill, not stop, a trial that waits for Train.
                reuse_actors=self.in_process,
            ),
            run_config=tune.RunConfig(
                name=type(source).__name__.lower(),
                storage_path=str(storage.local_path(self.folder) or self.folder),
                failure_config=tune.FailureConfig(max_failures=self.max_failures),
                callbacks=[callback],
                stop=StopOnError(callback),
                verbose=0,
            ),
        ).fit()
        if callback.problem is not None:
            raise callback.problem
        if preemption.requested():
            raise preemption.error("its trials had written checkpoints")


class TrialSearcher(Searcher):
    """Passes the jobs of a source to Ray Tune."""

    def __init__(self, source: TrialSource, settings: dict[str, Any]) -> None:
        super().__init__()
        self.source = source
        self.settings = settings

    def suggest(self, trial_id: str) -> Any:  # noqa: ARG002
        """Return the settings of the next job."""
        job = None if preemption.requested() else self.source.suggest()
        return Searcher.FINISHED if job is None else {"job": job.model_dump(), **self.settings}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Do nothing: ``TrialCallback`` passes the end to the source."""

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the source's records are its only state."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""


class TrialCallback(tune.Callback):
    """Passes reports and ends of trials to a source; keeps errors of the source, which Tune would ascribe to a trial.

    Attributes:
        problem: The error of the source, or None.
    """

    def __init__(self, source: TrialSource) -> None:
        self.source = source
        self.problem: Ada2iError | None = None
        self._left: set[TrialJob] = set()  # jobs requested to leave; the next attempt resumes them

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any) -> None:  # noqa: ARG002
        """Take a report."""
        facts = {name: result[name] for name in TrialReport.model_fields if name in result}
        if "epoch" not in facts:  # Tune's own marker of the end
            return
        report, job = TrialReport.model_validate(facts), _job(trial)
        if report.error == PreemptedError.__name__:
            self._left.add(job)
        else:
            self._pass(self.source.on_result, job, report)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:  # noqa: ARG002
        """Process the end of a trial."""
        if _job(trial) not in self._left:
            self._pass(self.source.on_complete, _job(trial))

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:  # noqa: ARG002
        """Process the end of a trial that failed too often."""
        lines = str(trial.get_error() or "it gives no reason").strip().splitlines()
        self._pass(self.source.on_error, _job(trial), lines[-1][:300])

    def _pass(self, call: Callable[..., None], *facts: Any) -> None:
        if self.problem is None:
            try:
                call(*facts)
            except Ada2iError as problem:
                self.problem = problem


class StopOnError(tune.Stopper):
    """Stops all trials once the source has raised an error."""

    def __init__(self, callback: TrialCallback) -> None:
        self.callback = callback

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002
        """Stop no single trial."""
        return False

    def stop_all(self) -> bool:
        """Return whether the source has raised an error."""
        return self.callback.problem is not None


def _job(trial: Any) -> TrialJob:
    return TrialJob.model_validate(trial.config["job"])
