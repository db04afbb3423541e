"""A small search without Ray: what is written, what is done once, what goes on, and who wins."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ada2i import storage
from ada2i.errors import ConfigError, IntegrityError, ResourceError
from ada2i.evaluation.metrics import summary
from ada2i.importers.demo import write_demo_corpus
from ada2i.loader.split_data import open_split
from ada2i.records import EpochRecord, Failure, RunRequest, SeedResult
from ada2i.search.progress import SearchProgress
from ada2i.search.records import Final, TrialRecord
from ada2i.search.request import (
    RECORD,
    SearchOptions,
    SearchRequest,
    SearchSpec,
    at_a_time,
    finalists,
    prepare_search,
    search_options,
    trial_uri,
    winner,
)
from ada2i.search.trials import Finals, TrialJob, TrialReport, Trials, TrialSource
from ada2i.training.evaluate import evaluate_run
from ada2i.training.launch import train_group
from ada2i.training.reporter import Reporter
from ada2i.training.request import TrainSpec
from tests.runs import run_uri, seed_uri
from tests.unit.training.small import TINY

SMALL = {**TINY, "training.epochs": 2, "training.seeds": [1, 2], "resources.workers": 1}
RATE = "training.learning_rate"


class Stopped(BaseException):
    """What ends a trial that ASHA gives up."""


class SourceReporter(Reporter):
    """Reports to a source, as a trial's process does through Ray Tune."""

    def __init__(self, source: TrialSource, job: TrialJob, *, stop_after: int | None) -> None:
        self.source, self.job, self.stop_after, self.best = source, job, stop_after, 0.0

    def epoch(self, seed: int, record: EpochRecord) -> None:
        if seed != self.job.seeds[0]:
            return
        self.best = max(self.best, record.dev_weighted_f1)
        report = TrialReport(epoch=record.epoch, score=self.best, dev_weighted_f1=record.dev_weighted_f1, seconds=1.0)
        self.source.on_result(self.job, report)
        if record.epoch == self.stop_after:
            raise Stopped(f"after epoch {record.epoch}")


def train(source: TrialSource, job: TrialJob, *, stop_after: int | None) -> Failure | None:
    """Do what a trial's process does."""
    reporter = SourceReporter(source, job, stop_after=stop_after)
    return train_group(job.run, job.run.request(), job.seeds, reporter, use_gpu=False, in_process=True)


def work(source: TrialSource, *, stop: Callable[[TrialJob], int | None] = lambda _: None) -> list[TrialJob]:
    """Do what Ray Tune does, one job after the other."""
    jobs = []
    while job := source.suggest():
        jobs.append(job)
        try:
            failure = train(source, job, stop_after=stop(job))
        except Stopped:
            failure = None
        if failure:
            source.on_result(job, TrialReport(epoch=0, score=0.0, error=failure.kind, message=failure.message))
        source.on_complete(job)
    return jobs


def spec(root: Path, *, options: dict[str, Any] | None = None, overrides: dict[str, Any] | None = None) -> SearchSpec:
    features = write_demo_corpus(root.as_uri(), dialogues=26)
    training = TrainSpec(features=features, preset="reference", overrides={**SMALL, **(overrides or {})})
    wanted = {"trials": 4, "finalists": 2, "trial_seeds": 2} | (options or {})
    return SearchSpec(spec=training, vary=(f"{RATE}=loguniform:1e-4:1e-2",), options=search_options(**wanted))


def opened(uri: str) -> tuple[SearchRequest, Trials]:
    request = SearchRequest.load(storage.join(uri, "request.json"))
    return request, Trials.open(uri, request)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("search")


@pytest.fixture(scope="module")
def searched(root: Path) -> str:
    """A search of four trials, of which one was stopped after an epoch."""
    uri = prepare_search(spec(root), root=str(root)).uri
    work(opened(uri)[1], stop=lambda job: 1 if job.number == 2 else None)
    return uri


def test_trials_are_recorded(searched: str) -> None:
    request, trials = opened(searched)
    assert {number: record.state for number, record in trials.records.items()} == {
        0: "complete",
        1: "complete",
        2: "stopped",
        3: "complete",
    }
    assert trials.records[0].params == {RATE: request.run.config.training.learning_rate}
    assert len({record.params[RATE] for record in trials.records.values()}) == 4
    assert [len(record.curve) for record in trials.records.values()] == [2, 2, 1, 2]
    stopped = trials.records[2]
    assert stopped.score == max(stopped.curve)
    assert stopped.seconds == 1.0
    trials.sweep()  # only the record and the request of a trial stay
    for number in trials.records:
        assert storage.children(trial_uri(searched, number)) == ["request.json", "trial.json"]


def test_trials_and_finals_share_no_seed(searched: str) -> None:
    request, _ = opened(searched)
    assert request.run.config.training.seeds == (1, 2)
    assert request.trial_seeds == (3, 4)
    assert RunRequest.load(storage.join(trial_uri(searched, 1), "request.json")).config.training.seeds == (3, 4)


def test_a_score_is_the_mean_over_the_seeds(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[float] = []
    kept = storage.delete_folder

    def look(uri: str) -> None:
        if storage.exists(storage.join(uri, "result.json")):  # checkpoints are deleted as well
            found.append(SeedResult.load(storage.join(uri, "result.json")).dev.weighted_f1)
        kept(uri)

    monkeypatch.setattr(storage, "delete_folder", look)
    _, trials = opened(prepare_search(spec(root, options={"trials": 1}), root=str(root)).uri)
    work(trials)
    trials.sweep()
    assert len(found) == 2
    assert trials.records[0].score == pytest.approx(sum(found) / 2)


@pytest.mark.parametrize(("method", "own"), [("none", set()), ("opm", {"balance.rate", "balance.base"})])
def test_the_default_space_is_that_of_the_chosen_method(root: Path, method: str, own: set[str]) -> None:
    plain = spec(root, overrides={"balance.method": method})
    overrides = {name: value for name, value in plain.spec.overrides.items() if name != "balance.start_epoch"}
    wanted = plain.model_copy(
        update={"vary": (), "spec": plain.spec.model_copy(update={"preset": "corrected", "overrides": overrides})}
    )
    request, _ = opened(prepare_search(wanted, root=str(root)).uri)
    assert {field for field in request.space.fields if field.startswith("balance.")} == own


def test_nothing_is_done_twice(searched: str, root: Path) -> None:
    assert prepare_search(spec(root), root=str(root)).uri == searched
    _, trials = opened(searched)
    assert (trials.left, trials.suggest()) == (0, None)


@pytest.mark.slow
def test_a_trial_that_was_cut_short_goes_on_with_its_params(root: Path) -> None:
    wanted = spec(root, options={"seed": 7})
    whole = prepare_search(wanted, root=str(root), search_id="whole").uri
    work(opened(whole)[1])
    cut = prepare_search(wanted, root=str(root), search_id="cut").uri
    first = opened(cut)[1]
    first.suggest()
    job = first.suggest()
    assert job is not None
    with pytest.raises(Stopped, match="after epoch 1"):  # a kill in the second trial
        train(first, job, stop_after=1)
    jobs = work(opened(cut)[1])
    assert [each.number for each in jobs] == [0, 1, 2, 3]
    for number in range(2):
        one, other = (TrialRecord.load(storage.join(trial_uri(uri, number), RECORD)) for uri in (whole, cut))
        assert one.params == other.params
        assert one.score == other.score  # to the last bit, from its checkpoint


def test_suggestions_know_what_has_ended(root: Path) -> None:
    """Params are a function of seed, number and records: a search that was reopened suggests the same."""
    wanted = spec(root, options={"trials": 12, "seed": 9})
    found = []
    for name in ("one", "two"):
        uri = prepare_search(wanted, root=str(root), search_id=name).uri
        for number in range(11):
            record = TrialRecord(
                number=number,
                params={RATE: 1e-3 + number * 1e-4},
                state="complete",
                curve=(0.5,),
                score=0.5,
                seconds=1.0,
            )
            storage.put(storage.join(trial_uri(uri, number), RECORD), record.stored())
        job = opened(uri)[1].suggest()
        assert job is not None
        found.append(RunRequest.load(storage.join(job.uri, "request.json")).config.training.learning_rate)
    assert found[0] == found[1]


def test_a_diverging_trial_does_not_end_the_search(root: Path) -> None:
    wanted = spec(root, options={"trials": 2}).model_copy(update={"vary": (f"{RATE}=loguniform:1e29:1e30",)})
    _, trials = opened(prepare_search(wanted, root=str(root)).uri)
    work(trials)
    assert [record.state for record in trials.records.values()] == ["complete", "diverged"]
    assert trials.records[1].score == 0.0
    assert "finite" in trials.records[1].problem


def test_an_error_that_is_no_trials_ends_the_search(root: Path) -> None:
    _, trials = opened(prepare_search(spec(root, options={"trials": 2, "seed": 3}), root=str(root)).uri)
    job = trials.suggest()
    assert job is not None
    with pytest.raises(IntegrityError, match="shard is damaged"):
        trials.on_result(job, TrialReport(epoch=1, score=0.0, error="IntegrityError", message="shard is damaged"))
    assert trials.records == {}


def test_a_trial_whose_process_dies_too_often_has_failed(root: Path) -> None:
    uri = prepare_search(spec(root, options={"trials": 2, "seed": 4}), root=str(root)).uri
    _, trials = opened(uri)
    job = trials.suggest()
    assert job is not None
    trials.on_error(job, "out of memory")
    record = TrialRecord.load(storage.join(trial_uri(uri, 0), RECORD))
    assert (record.state, record.score, record.problem) == ("failed", 0.0, "out of memory")


def record(number: int, score: float, state: Any = "complete", rate: float | None = None) -> TrialRecord:
    params = {RATE: number / 10 if rate is None else rate}
    return TrialRecord(number=number, params=params, state=state, curve=(score,), score=score, seconds=1.0)


def test_finalists() -> None:
    trials = [record(0, 0.1), record(1, 0.5), record(2, 0.9, "stopped"), record(3, 0.7), record(4, 0.5), record(5, 0.6)]
    by_number = {each.number: each for each in trials}
    assert [each.number for each in finalists(by_number, 3)] == [0, 3, 5, 1]
    by_number[5] = record(5, 0.6, rate=0.3)  # the same config as trial 3
    assert [each.number for each in finalists(by_number, 3)] == [0, 3, 1, 4]
    by_number[0] = record(0, 0.0, "diverged")  # competes all the same: its other seeds may do
    assert [each.number for each in finalists(by_number, 1)] == [0, 3]


def test_a_trial_must_beat_the_unchanged_config() -> None:
    def final(trial: int, *scores: float) -> Final:
        return Final(trial=trial, run_id=str(trial), params={}, dev_weighted_f1=summary(scores) if scores else None)

    assert winner([final(0, 0.5, 0.7), final(1, 0.6, 0.6)]).trial == 0  # type: ignore[union-attr]
    assert winner([final(0, 0.5, 0.6), final(1, 0.6, 0.6)]).trial == 1  # type: ignore[union-attr]
    assert winner([final(0), final(1, 0.1, 0.1)]).trial == 1  # type: ignore[union-attr]
    assert winner([final(0)]) is None


def test_finals_are_ordinary_runs_and_the_winner_alone_is_tested(
    searched: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened_splits: list[str] = []

    def spy(features: Any, split: str, *rest: Any, **more: Any) -> Any:
        opened_splits.append(split)
        return open_split(features, split, *rest, **more)

    monkeypatch.setattr("ada2i.loader.split_data.open_split", spy)
    request, trials = opened(searched)
    finals = Finals.open(searched, request, finalists(trials.records, request.options.finalists))
    assert len(work(finals)) == 6
    assert set(opened_splits) == {"train", "dev"}
    found = finals.finals()
    best = winner(found)
    assert best is not None
    assert all(not storage.exists(storage.join(seed_uri(run, 1), "test.json")) for run in finals.runs.values())
    again = Finals.open(searched, request, finalists(trials.records, request.options.finalists))
    assert (again.left, again.suggest(), again.finals()) == ([], None, found)
    for final in found:
        results = [SeedResult.load(storage.join(seed_uri(finals.runs[final.trial], s), "result.json")) for s in (1, 2)]
        assert final.dev_weighted_f1 == summary([result.dev.weighted_f1 for result in results])
    result = evaluate_run(run_uri(root.as_uri(), best.run_id))
    assert f"best on dev of 4 trials over 1 fields ({request.search_id})" in result.protocol
    wanted = RunRequest.load(storage.join(result.run_uri, "request.json"))
    assert wanted.search is not None
    assert (wanted.search.trial, wanted.search.space) == (best.trial, {RATE: "0.0001 to 0.01, by powers"})
    assert wanted.config.training.learning_rate == best.params[RATE]


def test_the_unchanged_config_is_trained_unchanged(searched: str) -> None:
    request, _ = opened(searched)
    zero = RunRequest.load(storage.join(trial_uri(searched, 0), "request.json")).config
    seeds = {"training": request.run.config.training}
    assert zero.model_copy(update=seeds) == request.run.config


def test_a_search_is_named_by_what_decides_it(root: Path, searched: str) -> None:
    for other in (spec(root, options={"seed": 1}), spec(root, overrides={"training.seeds": [5]})):
        assert prepare_search(other, root=str(root)).uri != searched
    assert prepare_search(spec(root, options={"concurrent": 1}), root=str(root)).uri == searched
    prepare_search(spec(root), root=str(root), search_id="mine")
    with pytest.raises(ConfigError, match="Search mine must be resumed with its original request"):
        prepare_search(spec(root, options={"seed": 1}), root=str(root), search_id="mine")


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        (
            {"options": {"concurrent": 400}},
            ResourceError,
            r"`--concurrent` = 400 trials of 1 workers with 1 CPU each need 400",
        ),
        ({"options": {"grace": 5}}, ConfigError, "`--grace` must be at most the epochs of a trial, 2, but is 5"),
        ({"overrides": {"resources.workers": 99}}, ResourceError, "`resources.workers` = 99 with 1 CPU each needs 99"),
        ({"overrides": {"resources.min_workers": 1}}, ConfigError, "`resources.min_workers` must be left out"),
        ({"overrides": {RATE: 1e-3}}, ConfigError, f"`{RATE}` is varied, but has a value already"),
        ({"overrides": {"model.hidden": 3}}, ConfigError, "`model.hidden` is not a config field"),
    ],
)
def test_mistakes_show_before_anything_is_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    more: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    wanted = spec(tmp_path, **more)
    with pytest.raises(error, match=message):
        prepare_search(wanted, root=str(tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def test_options_are_checked_at_once() -> None:
    assert search_options(trials=None) == SearchOptions()
    with pytest.raises(ConfigError, match="The search's options have mistakes") as raised:
        search_options(trials=0, reduction=1)
    assert ("`trials`" in raised.value.message, "`reduction`" in raised.value.message) == (True, True)


def test_how_many_run_at_a_time(searched: str) -> None:
    request = opened(searched)[0].model_copy(update={"options": SearchOptions()})
    assert at_a_time(request, {"CPU": 8.0}, gpus=0.0) == 8
    assert at_a_time(request, {"CPU": 8.0, "GPU": 3.0}, gpus=1.0) == 3
    assert at_a_time(request, {"CPU": 8.0, "GPU": 2.0}, gpus=0.3) == 6  # three on each
    resources = request.run.config.resources.model_copy(update={"workers": 2, "cpus_per_worker": 0.5})
    config = request.run.config.model_copy(update={"resources": resources})
    small = request.model_copy(update={"run": request.run.model_copy(update={"config": config})})
    assert at_a_time(small, {"CPU": 2.0}, gpus=0.0) == 2


def test_records_are_json(searched: str) -> None:
    text = json.loads(storage.get(storage.join(trial_uri(searched, 1), RECORD)))
    assert set(text) - {"seal"} == {
        "schema_version",
        "number",
        "params",
        "state",
        "curve",
        "score",
        "seconds",
        "problem",
    }


def test_progress(searched: str, capsys: pytest.CaptureFixture[str]) -> None:
    with SearchProgress(searched) as progress:
        progress({"kind": "searching", "trials": 3, "done": 1, "concurrent": 2})
        progress({"kind": "trial_epoch", "trial": 1, "epoch": 1, "score": 0.25})
        facts = {"params": {}, "best": 0, "best_score": 0.5}
        progress({"kind": "trial", "trial": 1, "state": "stopped", "score": 0.25, "epochs": 1, **facts})
        progress({"kind": "finals", "configs": 2, "seeds": 1, "left": 2})
        progress({"kind": "final", "trial": 0, "seed": 1, "score": 0.5})
        progress({"kind": "final_failed", "trial": 1, "seed": 1, "message": "seed 1: not finite"})
        progress("some noise")
    shown = capsys.readouterr().err
    assert "3 trials, 1 of them done before, 2 at a time" in shown
    assert "2/3  trial 1 stopped after 1 epoch: dev wF1 0.2500; best so far 0.5000 (trial 0)" in shown
    assert "Training the best 2 configs again on 1 seed: 2 trainings left" in shown
    assert "1/2  final of trial 0, seed 1: dev wF1 0.5000" in shown
    assert "2/2  final of trial 1, seed 1: not finite" in shown
    assert "noise" not in shown
