"""The function that a trial of Ray Tune runs: it trains the seeds of its job, on ranks started as in a training job."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray.train
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from ada2i import checkpoint, storage
from ada2i.errors import PreemptedError
from ada2i.jobs import driver, preemption
from ada2i.records import EpochRecord, Failure, RunRequest
from ada2i.search.records import score_of
from ada2i.search.trials import TrialJob, TrialReport
from ada2i.store import RunFolder, SeedFolder
from ada2i.training.launch import train_group
from ada2i.training.reporter import Reporter

Report = Callable[[dict[str, Any]], None]


@dataclass
class TrialReporter(Reporter):
    """Reports the epochs of one seed to Ray Tune, which may end the training in response."""

    seed: int
    report: Report
    selection: str
    curve: tuple[float, ...] = ()

    def epoch(self, seed: int, record: EpochRecord) -> None:
        """Report an epoch of the first seed; ASHA judges it, so other seeds are only trained if it is not stopped."""
        if seed != self.seed:
            return
        self.curve = (*self.curve, record.dev_weighted_f1)
        report = TrialReport(
            epoch=record.epoch,
            score=score_of(self.curve, self.selection),
            dev_weighted_f1=record.dev_weighted_f1,
            seconds=record.seconds,
        )
        self.report(report.model_dump())


def train(settings: dict[str, Any]) -> None:
    """Train the seeds of a job, from their newest checkpoints; report an error of this package instead of raising it.

    Args:
        settings: ``job``; ``use_gpu``, whether each rank has a GPU; ``folder``, for Ray Train's own state; ``origin``,
            for the record of the environment.

    Raises:
        PreemptedError: This process was requested to leave, but not the whole job: Tune restarts the trial elsewhere.
    """
    job = TrialJob.model_validate(settings["job"])
    run, first = RunFolder(job.uri), job.seeds[0]
    preemption.watch()
    request = RunRequest.load(run.request_uri, job.request)
    report, callbacks = _channel(request)
    selection = request.config.training.selection
    reporter = TrialReporter(first, report, selection)
    try:
        for record in _history(run.seed(first)):  # epochs of earlier attempts
            reporter.epoch(first, record)
        failure = train_group(
            run,
            request,
            job.seeds,
            TrialReporter(first, ray.train.report if callbacks else report, selection, reporter.curve),
            use_gpu=settings["use_gpu"],
            in_process=True,
            origin=settings["origin"],
            restarts=False,  # Tune restarts the trial
            folder=storage.join(settings["folder"], f"{job.number}-{first}"),
            callbacks=callbacks,
        )
    except Exception as problem:
        ours = driver.cause(problem)
        if ours is None:
            raise
        failure = Failure.of(ours)
    if failure is None:
        return
    if failure.kind == PreemptedError.__name__ and not preemption.requested_by_driver():
        raise failure.error()
    report(TrialReport(epoch=0, score=0.0, error=failure.kind, message=failure.message).model_dump())


def _channel(request: RunRequest) -> tuple[Report, Sequence[TuneReportCallback]]:
    """Return how this process reports to Tune, and the callbacks through which ranks in other processes report.

    If there are such ranks, all reports go through the callback: Tune's session accepts reports from one channel only.
    """
    if request.config.resources.workers == 1:
        return tune.report, ()
    callback = TuneReportCallback()  # type: ignore[no-untyped-call]

    def report(metrics: dict[str, Any]) -> None:
        callback.after_report(None, [metrics], None)  # type: ignore[arg-type]

    return report, (callback,)


def _history(seed: SeedFolder) -> tuple[EpochRecord, ...]:
    """Return the completed epochs of a seed."""
    if seed.is_trained():
        return seed.result().history
    step = checkpoint.latest_step(seed.checkpoints)
    if step is None:
        return ()
    return checkpoint.load_progress(checkpoint.checkpoint_uri(seed.checkpoints, step)).history
