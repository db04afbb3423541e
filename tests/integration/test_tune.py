"""A search on the session's cluster: killed in the middle, resumed, its winner registered; trials of several ranks."""

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from ada2i import storage
from ada2i.checkpoint import checkpoint_uri, latest_step, load_progress
from ada2i.errors import JobError, PreemptedError
from ada2i.jobs import client
from ada2i.jobs.events import Event
from ada2i.records import RunRequest, RunResult, SeedResult
from ada2i.registry.versions import find, version_uri
from ada2i.search.records import SearchOutcome, SearchResult, TrialRecord
from ada2i.search.request import (
    JOB,
    RECORD,
    REQUEST,
    RESULT,
    SearchRequest,
    SearchSpec,
    prepare_search,
    search_options,
    trial_uri,
)
from ada2i.store import RunFolder
from ada2i.training.request import TrainSpec
from infra.stack import Stack
from pipelines.tune import tune_ada2i
from tests.integration.test_train import run_cli
from tests.runs import dashboard, job_of, run_uri, seed_uri, stored

pytestmark = pytest.mark.integration

VARY = "training.learning_rate=loguniform:1e-4:1e-2"
EPOCHS = 40  # events come up to 2 s late


def driver_pid(stack: Stack, search_id: str) -> int:
    """Return the process id of a search's live driver."""
    api = client.connect(stack.environment()["RAY_API_SERVER_ADDRESS"])
    (job,) = [j for j in api.list_jobs() if not j.status.is_terminal() and (j.metadata or {})["run_id"] == search_id]
    assert job.driver_info is not None
    return int(job.driver_info.pid)


def spec(**more: Any) -> SearchSpec:
    overrides = {"training.epochs": EPOCHS, "training.seeds": [1], "resources.workers": 1} | more
    options = search_options(trials=4, finalists=1, concurrent=1)
    return SearchSpec(spec=TrainSpec(features="demo", overrides=overrides), vary=(VARY,), options=options)


def actors() -> list[str]:
    """Return the states of the trials' actors that live."""
    found = dashboard("/api/v0/actors?detail=1&limit=1000")["data"]["result"]["result"]
    kept = "TrainStateActor"  # the Train tab's memory, which outlives all runs
    names = [str(a["class_name"]) for a in found if a["state"] == "ALIVE"]
    return [name for name in names if "train" in name.lower() and name != kept]


def test_a_killed_search_goes_on(
    stack: Stack, root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = prepare_search(spec(), root=root).uri
    search_id = uri.rsplit("/", 1)[1]
    killed: list[int] = []

    def kill(event: Event | str) -> None:
        """Kill the driver in the second trial."""
        if isinstance(event, dict) and event["kind"] == "trial_epoch" and event["trial"] == 1 and not killed:
            killed.append(driver_pid(stack, search_id))
            os.kill(killed[0], signal.SIGKILL)

    with pytest.raises(JobError, match="resumes from what this one wrote"):
        client.run(job_of(uri, JOB), address=os.environ["RAY_API_SERVER_ADDRESS"], on_event=kill)
    assert killed
    done = storage.get(storage.join(trial_uri(uri, 0), RECORD))
    begun = RunRequest.load(storage.join(trial_uri(uri, 1), "request.json"))

    options = ["--vary", VARY, "--trials", "4", "--finalists", "1", "--concurrent", "1", "--seeds", "1"]
    options += ["--epochs", str(EPOCHS), "--model", "tuned", "--root", root, "--json"]
    run_cli(monkeypatch, "tune", "demo", *options, "--out", str(tmp_path / "out"))
    shown = capsys.readouterr()
    # The follower sees an epoch a little late: the killed driver may have got further than the second trial.
    assert re.search("4 trials, [123] of them done before, 1 at a time", shown.err)
    assert storage.get(storage.join(trial_uri(uri, 0), RECORD)) == done
    resumed = TrialRecord.load(storage.join(trial_uri(uri, 1), RECORD))
    assert resumed.params == {"training.learning_rate": begun.config.training.learning_rate}
    assert not [name for name in stored(uri) if name.startswith("ray/")]  # nothing pickled stays

    outcome = SearchOutcome.model_validate_json(shown.out)
    assert outcome.version == "tuned@1"
    search = outcome.search
    assert search == SearchResult.load(storage.join(uri, RESULT))
    assert [trial.number for trial in search.trials] == [0, 1, 2, 3]
    assert search.finals[0].trial == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["plot.png", "table.json", "table.md"]
    version = find(root, "tuned")
    assert (version.run_id, outcome.version) == (search.run_id, "tuned@1")
    result = RunResult.model_validate_json(storage.get(storage.join(version_uri(root, version), "result.json")))
    assert f"best on dev of 4 trials over 1 fields ({search_id})" in result.protocol
    for final in search.finals:
        run = run_uri(storage.normalise(root), final.run_id)
        score = SeedResult.load(storage.join(seed_uri(run, 1), "result.json")).dev.weighted_f1
        assert final.dev_weighted_f1 is not None
        assert final.dev_weighted_f1.values == (score,)
        # Test was opened for the winner alone.
        assert storage.exists(storage.join(seed_uri(run, 1), "test.json")) == (final.trial == search.winner)
    assert search.best.dev_weighted_f1.mean >= search.finals[0].dev_weighted_f1.mean  # type: ignore[union-attr]
    run_cli(monkeypatch, "tune", "demo", *options)  # again: nothing is left to do
    assert json.loads(capsys.readouterr().out)["version"] == "tuned@1"


def test_a_search_that_gets_sigterm_leaves_after_a_checkpoint(stack: Stack, root: str) -> None:
    address, wanted = (
        os.environ["RAY_API_SERVER_ADDRESS"],
        {"training.epochs": 150, "training.early_stopping_epochs": 150},
    )
    options = search_options(trials=1, finalists=1)
    uri = prepare_search(
        spec(**wanted).model_copy(update={"options": options}), root=root, search_id="search-leaves"
    ).uri
    seed = RunFolder(trial_uri(uri, 0)).seed(SearchRequest.load(storage.join(uri, REQUEST)).trial_seeds[0])
    signalled: list[int] = []

    def terminate(event: Event | str) -> None:
        if isinstance(event, dict) and event["kind"] == "trial_epoch" and not signalled:
            signalled.append(driver_pid(stack, "search-leaves"))
            os.kill(signalled[0], signal.SIGTERM)

    with pytest.raises(PreemptedError, match="requested to leave, and left after its trials had written checkpoints"):
        client.run(job_of(uri, JOB), address=address, on_event=terminate)
    assert not storage.exists(storage.join(trial_uri(uri, 0), RECORD))
    left = load_progress(checkpoint_uri(seed.checkpoints, latest_step(seed.checkpoints) or 0))
    assert 0 < left.epoch < 150  # not all of it, and nothing of it is lost
    assert not actors()

    client.run(job_of(uri, JOB), address=address, on_event=lambda _: None)
    record = TrialRecord.load(storage.join(trial_uri(uri, 0), RECORD))
    assert (record.state, len(record.curve)) == ("complete", 150)
    assert record.curve[: left.epoch] == tuple(epoch.dev_weighted_f1 for epoch in left.history)


def test_trials_of_two_ranks_on_half_a_cpu_each(stack: Stack, root: str) -> None:
    seen: list[Any] = []
    wanted = spec(**{"resources.workers": 2, "resources.cpus_per_worker": 0.5, "training.epochs": 3})
    options = search_options(trials=3, finalists=1, grace=1, reduction=2)
    uri = prepare_search(wanted.model_copy(update={"options": options}), root=root).uri
    client.run(job_of(uri, JOB), address=os.environ["RAY_API_SERVER_ADDRESS"], on_event=seen.append)
    search = SearchResult.load(storage.join(uri, RESULT))
    run = run_uri(storage.normalise(root), search.run_id)
    assert SeedResult.load(storage.join(seed_uri(run, 1), "result.json")).workers == 2
    (started,) = [e for e in seen if isinstance(e, dict) and e["kind"] == "searching"]
    assert started["concurrent"] >= 2
    assert not actors()


def rank_pids() -> list[int]:
    """Return the process ids of the ranks that live."""
    found = dashboard("/api/v0/actors?detail=1&limit=1000")["data"]["result"]["result"]
    return [int(a["pid"]) for a in found if a["state"] == "ALIVE" and a["class_name"] == "RayTrainWorker"]


def test_a_trial_that_loses_a_rank_is_restarted(stack: Stack, root: str) -> None:
    wanted = spec(**{"resources.workers": 2, "resources.cpus_per_worker": 0.5, "training.epochs": 15})
    options = search_options(trials=1, finalists=1, concurrent=1)
    uri = prepare_search(wanted.model_copy(update={"options": options}), root=root).uri
    killed: list[float] = []

    def kill(event: Event | str) -> None:
        """Kill the younger rank in the trial's second epoch."""
        if isinstance(event, dict) and event["kind"] == "trial_epoch" and event["epoch"] == 2 and not killed:
            os.kill(max(rank_pids()), signal.SIGKILL)
            killed.append(time.monotonic())
        elif isinstance(event, dict) and event["kind"] == "trial" and len(killed) == 1:
            killed.append(time.monotonic())

    client.run(job_of(uri, JOB), address=os.environ["RAY_API_SERVER_ADDRESS"], on_event=kill)
    (trial,) = SearchResult.load(storage.join(uri, RESULT)).trials
    assert (trial.state, len(trial.curve)) == ("complete", 15)
    assert killed[1] - killed[0] < 120.0  # the other rank did not wait for the sums' timeout


def test_the_flow_registers_and_shows(stack: Stack, root: str) -> None:
    options = search_options(trials=2, finalists=1)
    uri = tune_ada2i(features="demo", vary=[VARY], options=options, epochs=2, seeds=[1], model="flow", root=root)
    version = find(root, "flow")
    assert uri == version_uri(root, version)
    search_id = version.run_id.rpartition("-")[0]
    home = storage.join(storage.normalise(root), "searches", search_id)
    assert {"plot.png", "table.json", "table.md", RESULT} <= set(storage.children(home))
    assert version.flow_run_id == search_id  # by which a cancelled flow finds its job
