"""ASHA knows the trials of earlier attempts; trials' reports and ends reach their source."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from ada2i import presets, storage
from ada2i.errors import IntegrityError, PreemptedError
from ada2i.records import FeatureInfo, RunRequest
from ada2i.search.job import StopOnError, TrialCallback, asha
from ada2i.search.records import TrialRecord
from ada2i.search.request import RECORD, SearchOptions, SearchRequest, trial_uri
from ada2i.search.space import default_space
from ada2i.search.trials import TrialJob, TrialReport, Trials

EPOCHS = 9


@pytest.fixture
def trials(tmp_path: Path) -> Trials:
    config = presets.resolve(preset="corrected", settings="demo", overrides={"training.epochs": EPOCHS})
    features = FeatureInfo(uri="file:///x", dataset="x", fingerprint="0", synthetic=True, labels=("a", "b"), widths={})
    request = SearchRequest(
        run=RunRequest(run_id="search-1", config=config, features=features),
        overrides={},
        space=default_space(config, ()),
        options=SearchOptions(trials=8, grace=1),
    )
    for number in range(6):
        curve = tuple((number + 1) * epoch / 100 for epoch in range(1, EPOCHS + 1))
        record = TrialRecord(number=number, params={}, state="complete", curve=curve, score=curve[-1], seconds=1.0)
        storage.put(storage.join(trial_uri(tmp_path.as_uri(), number), RECORD), record.stored())
    return Trials.open(tmp_path.as_uri(), request)


def judge(trials: Trials, score: float) -> list[str]:
    """Return what ASHA says after each epoch of a new trial."""
    scheduler, trial = asha(trials.request, trials), SimpleNamespace(trial_id="new")
    anything: Any = scheduler
    anything.on_trial_add(None, trial)
    return [anything.on_trial_result(None, trial, {"epoch": e, "score": score * e}) for e in range(1, EPOCHS + 1)]


def test_a_new_trial_is_compared_with_earlier_ones(trials: Trials) -> None:
    assert judge(trials, 0.02)[0] == TrialScheduler.STOP
    assert judge(trials, 0.07) == [TrialScheduler.CONTINUE] * EPOCHS


def test_a_first_trial_goes_on(trials: Trials) -> None:
    trials.records.clear()
    assert judge(trials, 0.02) == [TrialScheduler.CONTINUE] * EPOCHS


def test_a_trial_that_reaches_the_last_epoch_finishes_it(trials: Trials) -> None:
    """It lags from the last epoch on: too late to save anything by stopping it."""
    scheduler: Any = asha(trials.request, trials)
    trial = SimpleNamespace(trial_id="new")
    scheduler.on_trial_add(None, trial)
    decisions = [
        scheduler.on_trial_result(None, trial, {"epoch": e, "score": 0.9 if e < EPOCHS else 0.0})
        for e in range(1, EPOCHS + 1)
    ]
    assert decisions == [TrialScheduler.CONTINUE] * EPOCHS


class Source:
    """A trial source that keeps the names of its calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def suggest(self) -> TrialJob | None:
        return None

    def on_result(self, job: TrialJob, report: TrialReport) -> None:
        self.calls.append("result")
        if report.error:
            raise IntegrityError(report.message)

    def on_complete(self, job: TrialJob) -> None:
        self.calls.append("complete")

    def on_error(self, job: TrialJob, problem: str) -> None:
        self.calls.append(f"error: {problem}")


def take(callback: TrialCallback, report: TrialReport) -> None:
    """Pass a report and the end of the trial that made it to a callback, as Tune does."""
    trial = SimpleNamespace(config={"job": TrialJob(number=1, uri="file:///x", request="0", seeds=(1,)).model_dump()})
    callback.on_trial_result(1, [], trial, {**report.model_dump(), "trial_id": "t1"})
    callback.on_trial_complete(1, [], trial)


def test_a_trial_that_left_has_not_ended() -> None:
    source = Source()
    take(TrialCallback(source), TrialReport(epoch=0, score=0.0, error=PreemptedError.__name__, message="It left."))
    assert source.calls == []


def test_an_error_of_the_source_stops_all_trials() -> None:
    source = Source()
    callback = TrialCallback(source)
    stopper = StopOnError(callback)
    take(callback, TrialReport(epoch=1, score=0.5))
    assert (source.calls, stopper.stop_all()) == (["result", "complete"], False)
    take(callback, TrialReport(epoch=0, score=0.0, error="IntegrityError", message="A shard is damaged."))
    assert (source.calls, stopper.stop_all()) == (["result", "complete", "result"], True)
    assert isinstance(callback.problem, IntegrityError)
