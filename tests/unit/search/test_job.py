"""ASHA knows the trials of earlier attempts: it stops a new one that lags behind them, and lets a good one go on."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from ada2i import presets, storage
from ada2i.records import FeatureInfo, RunRequest
from ada2i.search.job import asha
from ada2i.search.records import TrialRecord
from ada2i.search.request import RECORD, SearchOptions, SearchRequest, trial_uri
from ada2i.search.space import default_space
from ada2i.search.trials import Trials

EPOCHS = 9


@pytest.fixture
def trials(tmp_path: Path) -> Trials:
    config = presets.resolve(preset="corrected", settings="demo", overrides={"training.epochs": EPOCHS})
    features = FeatureInfo(uri="file:///x", dataset="x", fingerprint="0", synthetic=True, labels=("a", "b"), widths={})
    request = SearchRequest(
        run=RunRequest(run_id="search-1", config=config, features=features),
        overrides={},
        space=default_space("corrected", ()),
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


def test_a_new_trial_is_judged_with_the_earlier_ones(trials: Trials) -> None:
    assert judge(trials, 0.02)[0] == TrialScheduler.STOP
    assert judge(trials, 0.07) == [TrialScheduler.CONTINUE] * EPOCHS


def test_without_a_past_the_first_goes_on(trials: Trials) -> None:
    trials.records.clear()
    assert judge(trials, 0.02) == [TrialScheduler.CONTINUE] * EPOCHS


def test_who_comes_to_the_last_epoch_is_let_to_end(trials: Trials) -> None:
    """It lags from the last epoch on: too late to save anything by stopping it."""
    scheduler: Any = asha(trials.request, trials)
    trial = SimpleNamespace(trial_id="new")
    scheduler.on_trial_add(None, trial)
    said = [
        scheduler.on_trial_result(None, trial, {"epoch": e, "score": 0.9 if e < EPOCHS else 0.0})
        for e in range(1, EPOCHS + 1)
    ]
    assert said == [TrialScheduler.CONTINUE] * EPOCHS
