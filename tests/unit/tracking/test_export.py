"""Exports to trackers, read back with the trackers' own readers and formats."""

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ada2i import storage
from ada2i.errors import ConfigError, NotFoundError
from ada2i.records import RunResult
from ada2i.registry.aliases import move
from ada2i.registry.versions import Version, find, read_file
from ada2i.tracking.export import export
from ada2i.tracking.to_mlflow import MlflowTracker
from tests.unit.promotion.versions import early, features, trained

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("store").as_uri()
    uri = features(root, early)
    trained(root, "first", uri, training__epochs=2, training__seeds=[5], balance__method="ada2i")
    trained(root, "second", uri, training__epochs=3, training__seeds=[5], balance__method="ada2i")
    return root


def result_of(root: str, version: Version) -> RunResult:
    return RunResult.model_validate_json(read_file(root, version, "result.json"))


def client(file: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{file}")


def runs(file: Path) -> dict[str, Any]:
    found = client(file)
    experiment = found.get_experiment_by_name("talks")
    return {run.info.run_name: run for run in found.search_runs([experiment.experiment_id])}


@pytest.mark.slow
@pytest.mark.parametrize("to", ["folder", "sqlite:///{}/folder/mlflow.db"])
def test_mlflow_holds_each_version_once(root: str, tmp_path: Path, to: str) -> None:
    place = str(tmp_path / to) if to == "folder" else to.format(tmp_path)
    assert export(root, "mlflow", place) == {"talks@1": True, "talks@2": True}
    file = tmp_path / "folder" / "mlflow.db"
    found = runs(file)
    assert found.keys() == {"talks@1", "talks@2"}
    version, run = find(root, "talks", 2), found["talks@2"]
    result = result_of(root, version)
    assert run.info.status == "FINISHED"
    assert run.data.params["training.epochs"] == "3"
    assert run.data.params["model.encoder.kind"] == result.config.model.encoder.kind
    assert run.data.tags["ada2i.features"] == version.features.fingerprint
    assert run.data.tags["ada2i.dataset"] == "talks (SYNTHETIC)"
    assert run.data.metrics["test/weighted_f1"] == result.test_summary["weighted_f1"].mean
    reader = client(file)
    for name in ("dev_weighted_f1", "loss"):
        curve = [(m.step, m.value) for m in reader.get_metric_history(run.info.run_id, f"seed_5/{name}")]
        assert curve == [(epoch.epoch, getattr(epoch, name)) for epoch in result.seeds[0].history]
    ratios = [m.value for m in reader.get_metric_history(run.info.run_id, "seed_5/ratio/text")]
    assert ratios == [epoch.ratio["text"] for epoch in result.seeds[0].history]
    report = reader.download_artifacts(run.info.run_id, "report.html", str(tmp_path))
    assert Path(report).read_bytes() == read_file(root, version, "report.html")
    before = file.read_bytes()
    assert export(root, "mlflow", place) == {"talks@1": False, "talks@2": False}
    assert file.read_bytes() == before


def test_a_second_export_brings_aliases_up_to_date(root: str, tmp_path: Path) -> None:
    export(root, "mlflow", str(tmp_path))
    first = {name: run.info.run_id for name, run in runs(tmp_path / "mlflow.db").items()}
    move(root, "talks", "challenger", 1, expected=None, by="anna", reason="to try")
    assert not any(export(root, "mlflow", str(tmp_path)).values())
    found = runs(tmp_path / "mlflow.db")
    assert {name: run.info.run_id for name, run in found.items()} == first
    assert found["talks@1"].data.tags["ada2i.aliases"] == "challenger"
    assert found["talks@2"].data.tags["ada2i.aliases"] == ""


@pytest.mark.slow
def test_a_killed_export_is_done_again(root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_terminated", killed)
        with pytest.raises(KeyboardInterrupt):
            export(root, "mlflow", str(tmp_path))
    assert export(root, "mlflow", str(tmp_path)) == {"talks@1": True, "talks@2": True}
    assert {run.info.status for run in runs(tmp_path / "mlflow.db").values()} == {"FINISHED"}
    assert len(runs(tmp_path / "mlflow.db")) == 2


def records(file: Path) -> Iterator[Any]:
    """Yield the records of a W&B run: a LevelDB log behind a header of 7 bytes, of wandb's own messages."""
    from wandb.proto import wandb_internal_pb2

    kind_of_record: Any = wandb_internal_pb2

    data, place, whole = file.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while place + 7 <= len(data):
        rest = 32768 - place % 32768
        if rest < 7:
            place += rest
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a full record, or the last part of one
            record = kind_of_record.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


@pytest.mark.slow
def test_wandb_holds_each_version_once(root: str, tmp_path: Path) -> None:
    assert export(root, "wandb", str(tmp_path)) == {"talks@1": True, "talks@2": True}
    files = sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 2
    by_name = {next(r.run.display_name for r in records(file) if r.HasField("run")): file for file in files}
    version = find(root, "talks", 2)
    result, found = result_of(root, version), list(records(by_name["talks@2"]))
    (run,) = [record.run for record in found if record.HasField("run")][:1]
    assert run.project == "talks"
    config = {item.key: item.value_json for item in run.config.update}
    assert config["training.epochs"] == '"3"'
    assert config["ada2i.features"] == f'"{version.features.fingerprint}"'
    rows = [
        {item.key or ".".join(item.nested_key): item.value_json for item in record.history.item}
        for record in found
        if record.HasField("history")
    ]
    curve = [float(row["seed_5/dev_weighted_f1"]) for row in rows]
    assert curve == [epoch.dev_weighted_f1 for epoch in result.seeds[0].history]
    summary = {
        item.key or ".".join(item.nested_key): item.value_json
        for record in found
        if record.HasField("summary")
        for item in record.summary.update
    }
    assert float(summary["test/weighted_f1"]) == result.test_summary["weighted_f1"].mean
    assert (by_name["talks@2"].parent / "files" / "report.html").read_bytes() == read_file(root, version, "report.html")
    assert export(root, "wandb", str(tmp_path)) == {"talks@1": False, "talks@2": False}
    assert sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb")) == files
    assert [path.name for path in tmp_path.iterdir()] == ["wandb"]


@pytest.mark.parametrize(("kind", "to"), [("mlflow", "s3://b/x"), ("mlflow", "sqlite:///"), ("wandb", "https://x")])
def test_another_place_is_refused(root: str, kind: Any, to: str) -> None:
    with pytest.raises(ConfigError, match="`--to` must be a folder"):
        export(root, kind, to)


def test_unknown_models_and_trackers_are_refused(root: str, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="must hold the model talk, but holds talks"):
        export(root, "mlflow", str(tmp_path), ["talk"])
    with pytest.raises(ConfigError, match="A tracker must be one of mlflow, wandb"):
        export(root, "neptune", str(tmp_path))  # type: ignore[arg-type]


def test_without_the_extra_the_message_says_what_to_install(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'ada2i\[track\]'"):
        export(root, "wandb", str(tmp_path))


@pytest.mark.slow
def test_nothing_else_imports_the_trackers() -> None:
    text = (
        "import sys, ada2i.usecases, ada2i.training.launch, ada2i.tracking.export, pipelines.train; "
        "print([m for m in ('mlflow', 'wandb') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_relative_file_lies_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tracker = MlflowTracker("sqlite:///inner/runs.db")
    assert tracker.artifacts == (tmp_path / "inner" / "mlartifacts").as_uri()
    assert storage.local_path(tracker.artifacts) is not None
