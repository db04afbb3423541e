"""The trials of a search: which is next, what is heard of each, and how it ended; knows nothing of Ray.

A trial's request is written before it starts and its record when it has ended, so whoever comes later knows what to
train on from its checkpoints, what not to train again, and what to suggest next.
"""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from ada2i import errors, storage
from ada2i.errors import ConfigError, NotFoundError
from ada2i.evaluation.metrics import summary
from ada2i.jobs import events
from ada2i.records import Record, RunRequest, SeedResult, seed_uri
from ada2i.search.records import Final, Params, TrialRecord
from ada2i.search.request import RECORD, REQUEST, SearchRequest, finished, prepare_final, trial_uri
from ada2i.search.space import params_of
from ada2i.search.suggest import suggest

_HARMLESS = ("DivergenceError", "ConfigError")  # of one config's, not of the search's


class TrialReport(Record):
    """What a training tells after an epoch, or of its end where it cannot go on.

    Attributes:
        epoch: Counted from 1, as ASHA counts them.
        score: Best dev weighted F1 so far, by which ASHA compares; 0 where there is an error.
        dev_weighted_f1: Of this epoch.
        seconds: That this epoch took.
        error: The class of what keeps it from going on; empty where nothing does.
        message: What that says.
    """

    epoch: int
    score: float
    dev_weighted_f1: float = 0.0
    seconds: float = 0.0
    error: str = ""
    message: str = ""


class Job(Record):
    """One thing to train: some seeds in the folder of a run or trial."""

    number: int  # a trial's
    uri: str
    seeds: tuple[int, ...]


class TrialSource(Protocol):
    """Hands out jobs, and hears what becomes of them."""

    def draw(self) -> Job | None:
        """Return the next job, or None where there is none left."""

    def heard(self, job: Job, told: TrialReport) -> None:
        """Take what a job tells."""

    def ended(self, job: Job) -> None:
        """Take the end of a job, which trained all, was stopped, or told of an error."""

    def broke(self, job: Job, problem: str) -> None:
        """Take the end of a job whose processes died more often than they may."""


def refuse_harmful(told: TrialReport) -> None:
    """Raise an error that is no single config's fault."""
    if told.error and told.error not in _HARMLESS:
        raise getattr(errors, told.error)(told.message)


@dataclass
class Trials:
    """The trials of a search; see ``TrialSource``."""

    uri: str
    request: SearchRequest
    records: dict[int, TrialRecord]
    running: dict[int, Params] = field(default_factory=dict)
    told: dict[int, dict[int, TrialReport]] = field(default_factory=dict)  # by trial, then by epoch

    @classmethod
    def open(cls, uri: str, request: SearchRequest) -> "Trials":
        """Read the trials that have ended."""
        return cls(uri, request, finished(uri, request))

    @property
    def left(self) -> int:
        """How many have not ended."""
        return self.request.options.trials - len(self.records)

    @property
    def best(self) -> TrialRecord | None:
        """The best that has ended; the first of equals."""
        return max(self.records.values(), key=lambda record: record.score, default=None)

    def draw(self) -> Job | None:
        """Return the next trial: one that was cut short, with its own params, or a new one."""
        for number in range(self.request.options.trials):
            if number in self.records or number in self.running:
                continue
            params = self._params(number)
            try:
                config = self.request.config(params if number else {}, self.request.trial_seeds)
            except ConfigError as problem:  # a corner that the check of the space did not come to
                self._record(number, params, state="failed", problem=problem.message)
                continue
            uri = trial_uri(self.uri, number)
            run_id = f"{self.request.search_id}-{number}"
            run = self.request.run.model_copy(update={"run_id": run_id, "config": config})
            storage.put(storage.join(uri, REQUEST), run.stored())
            self.running[number], self.told[number] = params, {}
            return Job(number=number, uri=uri, seeds=self.request.trial_seeds)
        return None

    def heard(self, job: Job, told: TrialReport) -> None:
        """Take an epoch; one that comes again, after a worker was lost, is the same."""
        refuse_harmful(told)
        self.told[job.number][told.epoch] = told
        if not told.error:
            events.emit("trial_epoch", trial=job.number, epoch=told.epoch, score=told.score)

    def ended(self, job: Job) -> None:
        """Write how a trial ended."""
        results = [storage.join(seed_uri(job.uri, seed), "result.json") for seed in job.seeds]
        problem = next((told.message for told in self.told[job.number].values() if told.error), "")
        params = self.running[job.number]
        if problem:
            self._record(job.number, params, state="diverged", problem=problem)
        elif all(map(storage.exists, results)):
            scores = [SeedResult.load(result).dev.weighted_f1 for result in results]
            self._record(job.number, params, state="complete", score=summary(scores).mean)
        else:
            self._record(job.number, params, state="stopped", score=max(self._curve(job.number)))

    def broke(self, job: Job, problem: str) -> None:
        """Write that a trial failed."""
        self._record(job.number, self.running[job.number], state="failed", problem=problem)

    def sweep(self) -> None:
        """Delete what the trials that have ended have trained, once nothing runs: their records are what is kept.

        A crash before leaves it to the next attempt; what a process that dies late still writes stays, and is not read.
        """
        for number in self.records:
            for seed in self.request.trial_seeds:
                with suppress(NotFoundError):
                    storage.delete_folder(seed_uri(trial_uri(self.uri, number), seed))

    def _params(self, number: int) -> Params:
        if number == 0:
            return params_of(self.request.run.config, self.request.space)
        try:
            begun = RunRequest.load(storage.join(trial_uri(self.uri, number), REQUEST))
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
        epochs = sorted(self.told.get(number, {}).items())
        return tuple(told.dev_weighted_f1 for _, told in epochs if not told.error)

    def _record(self, number: int, params: Params, *, state: Any, score: float = 0.0, problem: str = "") -> None:
        record = TrialRecord(
            number=number,
            params=params,
            state=state,
            curve=self._curve(number),
            score=score,
            seconds=round(sum(told.seconds for told in self.told.get(number, {}).values()), 1),
            problem=problem,
        )
        storage.put(storage.join(trial_uri(self.uri, number), RECORD), record.stored())
        self.running.pop(number, None)
        self.records[number] = record
        self._tell(record)

    def _tell(self, record: TrialRecord) -> None:
        best = self.best or record
        facts: dict[str, Any] = {"epochs": len(record.curve), "best": best.number, "best_score": best.score}
        events.emit("trial", trial=record.number, state=record.state, score=record.score, params=record.params, **facts)


@dataclass
class Finals:
    """The best configs again, each seed of each a job; see ``TrialSource``."""

    runs: dict[int, str]  # URIs by trial, the config as it is first
    params: dict[int, Params]
    seeds: tuple[int, ...]
    drawn: set[tuple[int, int]] = field(default_factory=set)
    problems: dict[int, str] = field(default_factory=dict)

    @classmethod
    def open(cls, uri: str, request: SearchRequest, chosen: list[TrialRecord]) -> "Finals":
        """Write the requests of the runs."""
        runs = {record.number: prepare_final(uri, request, record) for record in chosen}
        params = {record.number: record.params for record in chosen}
        return cls(runs, params, request.run.config.training.seeds)

    @property
    def left(self) -> list[tuple[int, int]]:
        """Trials and seeds that have no result."""
        return [(n, s) for s in self.seeds for n in self.runs if not storage.exists(self._result(n, s))]

    def draw(self) -> Job | None:
        """Return the next seed of a run."""
        for number, seed in self.left:
            if (number, seed) not in self.drawn:
                self.drawn.add((number, seed))
                return Job(number=number, uri=self.runs[number], seeds=(seed,))
        return None

    def heard(self, job: Job, told: TrialReport) -> None:
        """Take an epoch, or why there are no more."""
        refuse_harmful(told)
        if told.error:
            self.problems[job.number] = f"seed {job.seeds[0]}: {told.message}"

    def ended(self, job: Job) -> None:
        """Tell of the end of a seed."""
        if job.number in self.problems:
            events.emit("final_failed", trial=job.number, seed=job.seeds[0], message=self.problems[job.number])
            return
        score = SeedResult.load(self._result(job.number, job.seeds[0])).dev.weighted_f1
        events.emit("final", trial=job.number, seed=job.seeds[0], score=score)

    def broke(self, job: Job, problem: str) -> None:
        """Give up: a config that was trained before can be trained again."""
        raise errors.JobError(
            f"Seed {job.seeds[0]} of {job.uri} must be trained, but its processes died too often: {problem} The same "
            "command goes on from its newest checkpoint."
        )

    def finals(self) -> tuple[Final, ...]:
        """Return what was found."""
        return tuple(self._final(number) for number in self.runs)

    def _final(self, number: int) -> Final:
        scores = None
        if number not in self.problems:
            found = [SeedResult.load(self._result(number, seed)).dev.weighted_f1 for seed in self.seeds]
            scores = summary(found)
        return Final(
            trial=number,
            run_id=self.runs[number].rsplit("/", 1)[1],
            params=self.params[number],
            dev_weighted_f1=scores,
            problem=self.problems.get(number, ""),
        )

    def _result(self, number: int, seed: int) -> str:
        return storage.join(seed_uri(self.runs[number], seed), "result.json")
