"""The trials of a search: the choice of the next one, their reports, and their ends; does not depend on Ray.

A trial's request is written before it starts, and its record when it has ended. So the next attempt of a search knows
which trials to resume from their checkpoints, which to skip, and what to suggest next.
"""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from ada2i import storage
from ada2i.errors import ConfigError, DivergenceError, JobError, NotFoundError
from ada2i.evaluation.metrics import summary
from ada2i.jobs import events
from ada2i.records import Failure, Record
from ada2i.search.records import Final, Params, TrialRecord, score_of
from ada2i.search.request import RECORD, SearchRequest, finished, prepare_final, trial_uri
from ada2i.search.space import params_of
from ada2i.search.suggest import suggest
from ada2i.store import RunFolder

_OF_ONE_CONFIG = (DivergenceError.__name__, ConfigError.__name__)  # errors that do not end the search


class TrialReport(Record):
    """The report of a training after an epoch, or about an error that ends it.

    Attributes:
        epoch: Number of the epoch, counted from 1; 0 for an error, which ASHA does not judge.
        score: Dev weighted F1 of the epoch that is selected so far, by which ASHA compares; 0 for an error.
        dev_weighted_f1: The score of this epoch.
        seconds: Duration of this epoch.
        error: Class of the error; empty if there is none.
        message: Its message.
    """

    epoch: int
    score: float
    dev_weighted_f1: float = 0.0
    seconds: float = 0.0
    error: str = ""
    message: str = ""


class TrialJob(Record):
    """What one trial of Ray Tune trains: some seeds in the folder of a run or trial."""

    number: int  # a trial's
    uri: str
    request: str  # SHA-256 of the request in the folder, which another process might replace
    seeds: tuple[int, ...]

    @property
    def run(self) -> RunFolder:
        """Its folder."""
        return RunFolder(self.uri)


class TrialSource(Protocol):
    """Suggests jobs, and receives their reports and ends."""

    def suggest(self) -> TrialJob | None:
        """Return the next job, or None if none are left."""

    def on_result(self, job: TrialJob, report: TrialReport) -> None:
        """Process a report of a job."""

    def on_complete(self, job: TrialJob) -> None:
        """Process the end of a job that trained all epochs, was stopped, or reported an error."""

    def on_error(self, job: TrialJob, problem: str) -> None:
        """Process the end of a job whose processes died too often."""


def raise_error(report: TrialReport) -> None:
    """Raise a reported error unless only the job's own config is its cause."""
    if report.error and report.error not in _OF_ONE_CONFIG:
        raise Failure(kind=report.error, message=report.message).error()


@dataclass
class Trials:
    """The trials of a search; see ``TrialSource``."""

    uri: str
    request: SearchRequest
    records: dict[int, TrialRecord]
    running: dict[int, Params] = field(default_factory=dict)
    reports: dict[int, dict[int, TrialReport]] = field(default_factory=dict)  # by trial, then by epoch
    problems: dict[int, str] = field(default_factory=dict)  # by trial

    @classmethod
    def open(cls, uri: str, request: SearchRequest) -> "Trials":
        """Read the trials that have ended."""
        return cls(uri, request, finished(uri, request))

    @property
    def left(self) -> int:
        """The number of trials that have not ended."""
        return self.request.options.trials - len(self.records)

    def suggest(self) -> TrialJob | None:
        """Return the next trial: an interrupted one with its own params, or a new one."""
        for number in range(self.request.options.trials):
            if number in self.records or number in self.running:
                continue
            params = self._params(number)
            try:
                config = self.request.config(params if number else {}, self.request.trial_seeds)
            except ConfigError as problem:  # the check of the space did not try this combination
                self._record(number, params, state="failed", problem=problem.message)
                continue
            run_id = f"{self.request.search_id}-{number}"
            run = self.request.run.model_copy(update={"run_id": run_id, "config": config})
            uri, digest = trial_uri(self.uri, number), storage.digest(run.stored())
            job = TrialJob(number=number, uri=uri, request=digest, seeds=self.request.trial_seeds)
            storage.put(job.run.request_uri, run.stored())
            self.running[number], self.reports[number] = params, {}
            return job
        return None

    def on_result(self, job: TrialJob, report: TrialReport) -> None:
        """Store an epoch's report; if it is reported again after the loss of a worker, it is the same."""
        raise_error(report)
        if report.error:
            self.problems[job.number] = report.message
            return
        self.reports[job.number][report.epoch] = report
        events.emit("trial_epoch", trial=job.number, epoch=report.epoch, score=report.score)

    def on_complete(self, job: TrialJob) -> None:
        """Write a trial's record."""
        params, seeds = self.running[job.number], [job.run.seed(seed) for seed in job.seeds]
        if job.number in self.problems:
            self._record(job.number, params, state="diverged", problem=self.problems[job.number])
        elif all(seed.is_trained() for seed in seeds):
            score = summary([seed.result().dev.weighted_f1 for seed in seeds]).mean
            self._record(job.number, params, state="complete", score=score)
        else:
            self._record(
                job.number,
                params,
                state="stopped",
                score=score_of(self._curve(job.number), self.request.run.config.training.selection),
            )

    def on_error(self, job: TrialJob, problem: str) -> None:
        """Write the record of a failed trial."""
        self._record(job.number, self.running[job.number], state="failed", problem=problem)

    def sweep(self) -> None:
        """Delete the checkpoints of finished trials when no trial runs: their records are kept.

        After a crash before this, the next attempt deletes them; what a killed process writes after that is never read.
        """
        for number in self.records:
            for seed in self.request.trial_seeds:
                with suppress(NotFoundError):
                    storage.delete_folder(RunFolder(trial_uri(self.uri, number)).seed(seed).uri)

    def _params(self, number: int) -> Params:
        if number == 0:
            return params_of(self.request.run.config, self.request.space)
        try:
            begun = RunFolder(trial_uri(self.uri, number)).request()
        except NotFoundError:
            return suggest(
                self.request.space,
                seed=self.request.options.seed,
                number=number,
                known=[self.records[known] for known in sorted(self.records)],
                running=list(self.running.values()),
            )
        return params_of(begun.config, self.request.space)

    def _curve(self, number: int) -> tuple[float, ...]:
        return tuple(report.dev_weighted_f1 for _, report in sorted(self.reports.get(number, {}).items()))

    def _record(self, number: int, params: Params, *, state: Any, score: float = 0.0, problem: str = "") -> None:
        """Write a trial's record, and report it with the best record; of equals the first is the best."""
        record = TrialRecord(
            number=number,
            params=params,
            state=state,
            curve=self._curve(number),
            score=score,
            seconds=round(sum(report.seconds for report in self.reports.get(number, {}).values()), 1),
            problem=problem,
        )
        storage.put(storage.join(trial_uri(self.uri, number), RECORD), record.stored())
        self.running.pop(number, None)
        self.records[number] = record
        best = max(self.records.values(), key=lambda each: each.score)
        facts: dict[str, Any] = {"epochs": len(record.curve), "best": best.number, "best_score": best.score}
        events.emit("trial", trial=number, state=state, score=score, params=params, **facts)


@dataclass
class Finals:
    """Trains the best configs again, each seed of each as a job; see ``TrialSource``."""

    runs: dict[int, str]  # URIs by trial, the unchanged config first
    requests: dict[int, str]  # SHA-256 of their requests
    params: dict[int, Params]
    seeds: tuple[int, ...]
    begun: set[tuple[int, int]] = field(default_factory=set)
    problems: dict[int, str] = field(default_factory=dict)

    @classmethod
    def open(cls, uri: str, request: SearchRequest, chosen: list[TrialRecord]) -> "Finals":
        """Write the requests of the runs."""
        prepared = {record.number: prepare_final(uri, request, record) for record in chosen}
        runs = {number: run for number, (run, _) in prepared.items()}
        requests = {number: digest for number, (_, digest) in prepared.items()}
        params = {record.number: record.params for record in chosen}
        return cls(runs, requests, params, request.run.config.training.seeds)

    @property
    def left(self) -> list[tuple[int, int]]:
        """The trials and seeds without a result."""
        return [(n, s) for s in self.seeds for n in self.runs if not RunFolder(self.runs[n]).seed(s).is_trained()]

    def suggest(self) -> TrialJob | None:
        """Return the next seed of a run."""
        for number, seed in self.left:
            if (number, seed) not in self.begun:
                self.begun.add((number, seed))
                return TrialJob(number=number, uri=self.runs[number], request=self.requests[number], seeds=(seed,))
        return None

    def on_result(self, job: TrialJob, report: TrialReport) -> None:
        """Process an epoch's report, or the error that ends the job."""
        raise_error(report)
        if report.error:
            self.problems[job.number] = f"seed {job.seeds[0]}: {report.message}"

    def on_complete(self, job: TrialJob) -> None:
        """Report the end of a seed."""
        (seed,) = job.seeds
        if job.number in self.problems:
            events.emit("final_failed", trial=job.number, seed=seed, message=self.problems[job.number])
        else:
            events.emit("final", trial=job.number, seed=seed, score=job.run.seed(seed).result().dev.weighted_f1)

    def on_error(self, job: TrialJob, problem: str) -> None:
        """Raise an error: a config that was trained before can be trained again."""
        raise JobError(
            f"Seed {job.seeds[0]} of {job.uri} must be trained, but its processes died too often: {problem} Repeat the "
            "command to resume from its newest checkpoint."
        )

    def finals(self) -> tuple[Final, ...]:
        """Return the finals."""
        return tuple(self._final(number, RunFolder(uri)) for number, uri in self.runs.items())

    def _final(self, number: int, run: RunFolder) -> Final:
        scores = None
        if number not in self.problems:
            scores = summary([run.seed(seed).result().dev.weighted_f1 for seed in self.seeds])
        return Final(
            trial=number,
            run_id=storage.name_of(run.uri),
            params=self.params[number],
            dev_weighted_f1=scores,
            problem=self.problems.get(number, ""),
        )
