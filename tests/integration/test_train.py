"""Whole runs on S3, on the session's stack: command line, dashboard, registry, bad input that only a cluster shows."""

import json
import os
import sys
import time
import urllib.request
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import ada2i
from ada2i import cli, storage, usecases
from ada2i.errors import DivergenceError, ResourceError
from ada2i.inference.models import load_checkpoint
from ada2i.jobs.client import connect
from ada2i.jobs.events import Event
from ada2i.prediction.request import PredictSpec
from ada2i.records import RunResult
from ada2i.registry.versions import find, version_uri
from ada2i.store import Store
from ada2i.training.launch import launch
from ada2i.training.metrics import METRICS
from infra.stack import Stack
from tests.runs import dashboard, job_of, listener, prepared, registered_weights, train_run

pytestmark = pytest.mark.integration


def run_cli(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["ada2i", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code in (0, None)


@pytest.mark.smoke
def test_train_registers_on_s3(
    stack: Stack, root: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--seeds", "1,2", "--set", "training.epochs=3", "--root", root, "--model", "cli"]
    run_cli(monkeypatch, "train", "demo", *options)
    result = RunResult.load(storage.join(version_uri(root, find(root, "cli")), "result.json"))
    assert [seed.seed for seed in result.seeds] == [1, 2]
    assert result.test_summary["weighted_f1"].sd is not None
    shown = capsys.readouterr().out
    assert "cli@1" in shown
    assert f"{result.test_summary['weighted_f1'].mean:.4f}" in shown
    version = find(root, "cli")
    uri = version_uri(root, version)
    expected = {"weights.safetensors", "config.json", "result.json", "predictions.parquet", "environment.json"}
    assert set(storage.children(uri)) == expected | {"report.html", "README.md", "manifest.json", "claim.json"}
    best = max(result.seeds, key=lambda seed: seed.dev.weighted_f1)
    assert version.seed == best.seed
    weights = registered_weights(uri)
    statistics = {name for name in weights if name.startswith("standardise.") or name == "fusion.weights"}
    assert statistics  # of train, in addition to the learned weights
    assert sum(tensor.numel() for name, tensor in weights.items() if name not in statistics) == best.parameters
    run_cli(monkeypatch, "registry", "list", "cli", "--root", root, "--json")
    assert json.loads(capsys.readouterr().out)[0]["number"] == 1


def test_train_tab_and_gauges_show_the_run(stack: Stack, root: str) -> None:
    uri = prepared(root, "shown")
    seen: set[str] = set()  # while it lives: a worker's gauges go with it

    def look(event: Event | str) -> None:
        if isinstance(event, dict) and event["kind"] == "epoch":
            seen.update(gauges("shown"))

    launch(job_of(uri), listener(look))
    modalities = ("ratio", "coefficient", "encoder_gradient_norm")
    expected = {metric.exported for metric in METRICS if not metric.by_modality} | {
        f"ray_ada2i_{name}" for name in modalities
    }
    assert expected <= seen
    shown = train_run("shown")
    assert shown["status"] == "FINISHED"
    assert len(shown["attempts"][-1]["workers"]) == 2
    secrets = [value for name, value in stack.environment().items() if "SECRET" in name]
    assert secrets
    assert not any(secret in json.dumps(shown) for secret in secrets)


def test_a_gauge_that_was_set_once_is_exported_as_long_as_its_process_lives(stack: Stack) -> None:
    code = (
        "import ray, time; from ada2i.extraction.job import METRICS; from ada2i.jobs.metrics import Gauges; "
        "ray.init(); g = Gauges(METRICS, run='once'); "
        "g.set('extraction_to_encode', 7, modality='t', encoder='e'); time.sleep(90)"
    )
    client = connect(os.environ["RAY_API_SERVER_ADDRESS"])
    job = client.submit_job(entrypoint=f'{sys.executable} -c "{code}"')
    try:
        deadline = time.monotonic() + 60
        while not gauges("once"):
            assert time.monotonic() < deadline, client.get_job_logs(job)
            time.sleep(0.5)
        for _ in range(12):  # Ray drops a value that was not set for 4 s
            time.sleep(1)
            assert gauges("once") == {"ray_ada2i_extraction_to_encode"}
    finally:
        client.stop_job(job)


def gauges(run_id: str) -> set[str]:
    """Return the names of our gauges that the cluster exports for a run."""
    found: set[str] = set()
    for target in (t for group in dashboard("/api/prometheus/sd") for t in group["targets"]):
        with suppress(OSError), urllib.request.urlopen(f"http://{target}/metrics", timeout=10) as page:
            lines = page.read().decode().splitlines()
            found.update(line.partition("{")[0] for line in lines if f'run="{run_id}"' in line)
    return found


def test_more_workers_than_cpus(stack: Stack, root: str) -> None:
    with pytest.raises(ResourceError, match=r"`resources.workers` = 99 .* needs 99 CPUs, but the cluster has"):
        prepared(root, "too-many", **{"resources.workers": 99})
    assert "too-many" not in storage.children(storage.join(root, "runs"))


def test_diverging_run_stops_naming_the_dialogues(stack: Stack, root: str) -> None:
    # A learning rate at which float32 overflows within an epoch.
    uri = prepared(root, "diverging", **{"training.learning_rate": 1e30})
    with pytest.raises(DivergenceError, match=r"not finite at step \d+ of seed 1.*Dialogues: "):
        launch(job_of(uri), listener(lambda _: None))


def test_job_metadata_holds_no_secret(stack: Stack) -> None:
    jobs = json.dumps(dashboard("/api/jobs/"))
    secrets = [value for name, value in os.environ.items() if "SECRET" in name or "AUTH_STRING" in name]
    assert secrets
    assert not any(secret in jobs for secret in secrets)


@pytest.mark.smoke
def test_a_local_run_equals_one_worker_on_ray_to_the_last_bit(root: str) -> None:
    config = {"training.epochs": 3, "resources.workers": 1}
    found = []
    for local in (True, False):
        run = ada2i.train("demo", config, seeds=[3], local=local, root=root, progress=False)
        found.append((run, load_checkpoint(run.result.tests[0].checkpoint_uri).state_dict()))
    (here, weights), (on_ray, same) = found
    assert all(torch.equal(tensor, same[name]) for name, tensor in weights.items())
    assert here.scores == on_ray.scores
    version = here.register("quick")
    frame = ada2i.demo_table()
    near = ada2i.load(version, root=root)
    assert near.uri.startswith("file://")  # a copy of the version on S3
    local_rows = near.predict(frame)
    place, manifest = usecases.predict(
        PredictSpec(version=version, source=on_ray.result.features.uri, workers=1),
        Store.open(root),
        hooks=usecases.Hooks(),
        extraction_run="none",
    )
    parts = [pq.read_table(pa.BufferReader(storage.get(storage.join(place, name)))) for name in manifest.files]
    on_ray_rows = {row["utterance_id"]: row for row in pa.concat_tables(parts).to_pylist()}
    for row in local_rows.to_pylist():
        assert row["p_joy"] == pytest.approx(on_ray_rows[row["utterance_id"]]["p_joy"], abs=1e-6)
