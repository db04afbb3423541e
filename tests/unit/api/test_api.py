"""The Python API without Ray: documented examples, frames of each library, copies, and what is refused."""

import doctest
import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

import ada2i
from ada2i import storage
from ada2i.api import frames, model, work
from ada2i.errors import ConfigError, DataError, NotFoundError
from ada2i.records import RunResult

ROOT = Path(__file__).resolve().parents[3]

_WITHOUT_RAY = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("ray", "prefect"):
            raise AssertionError(f"{name} was imported")
sys.meta_path.insert(0, Refuse())
"""


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> ada2i.LoadedModel:
    root = str(tmp_path_factory.mktemp("store"))
    config = {"training": {"epochs": 2}}
    run = ada2i.train(
        ada2i.demo_table(), config, dataset="calls", seeds=[1], modalities="ta", root=root, progress=False
    )
    return ada2i.load(run.register("calls"), root=root)


@pytest.fixture
def table() -> pa.Table:
    return ada2i.demo_table().slice(0, 60)


def run_without_ray(code: str, folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("ADA2I_ROOT", None)
    command = [sys.executable, "-c", _WITHOUT_RAY + code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", [model, work])
def test_documented_examples_work(module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ADA2I_ROOT", raising=False)
    failed, tried = doctest.testmod(module)
    assert tried > 4
    assert failed == 0


def test_importing_ada2i_imports_no_heavy_package() -> None:
    code = "import sys, ada2i; print([m for m in ('torch', 'ray', 'prefect', 'pyarrow', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    assert set(ada2i.__all__) <= set(dir(ada2i))
    with pytest.raises(AttributeError, match="lod"):
        ada2i.lod  # noqa: B018


def test_the_quickstart_runs_without_ray_as_printed(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "quickstart.md").read_text(), re.DOTALL)
    code = "".join(blocks).replace('"training.epochs": 20', '"training.epochs": 2')
    assert sum(line.strip() != "" and not line.startswith("#") for line in code.splitlines()) <= 15
    shown = run_without_ray(code, tmp_path)
    assert "linear floor" in shown
    assert "contribution_text" in shown
    assert Path(re.findall(r"^/.*report\.html$", shown, re.MULTILINE)[0]).read_text().startswith("<!DOCTYPE html>")


def test_the_card_of_a_copy_loads_it_as_printed(calls: ada2i.LoadedModel, tmp_path: Path) -> None:
    copy = calls.save_pretrained(tmp_path / "copy")
    card = (copy / "README.md").read_text()
    code = re.findall(r"```python\n(.*?)```", card, re.DOTALL)[0]
    run_without_ray(code + "assert predictions.num_rows == len(logits) == 4", copy)


def _pandas(table: pa.Table) -> pd.DataFrame:
    return table.to_pandas().set_index(pd.Index(range(500, 500 + table.num_rows)))


@pytest.mark.parametrize(
    ("make", "kind"),
    [(_pandas, pd.DataFrame), (pl.from_arrow, pl.DataFrame), (lambda table: table, pa.Table)],
    ids=["pandas", "polars", "pyarrow"],
)
def test_predictions_are_a_frame_of_the_same_library_with_rows_in_the_same_order(
    calls: ada2i.LoadedModel, table: pa.Table, make: Callable[[pa.Table], Any], kind: type
) -> None:
    shuffled = table.take(pa.array([(17 * row) % table.num_rows for row in range(table.num_rows)]))
    frame = make(shuffled)
    found: Any = calls.predict(frame)
    expected = {row["utterance_id"]: row for row in calls.predict(table).to_pylist()}
    rows = frames.to_arrow(found).to_pylist()
    assert [row["utterance_id"] for row in rows] == shuffled["utterance_id"].to_pylist()
    for row in rows:
        assert row["label"] == expected[row["utterance_id"]]["label"]
        assert row["p_joy"] == pytest.approx(expected[row["utterance_id"]]["p_joy"], abs=1e-6)
        assert {"contribution_text", "contribution_audio"} <= row.keys()
    if kind is pd.DataFrame:
        assert found.index.equals(frame.index)
    assert isinstance(found, kind)


def test_a_path_and_a_feature_set_are_predicted_like_the_frame(
    calls: ada2i.LoadedModel, table: pa.Table, tmp_path: Path
) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table, tmp_path / "table.parquet")
    features = ada2i.import_table(ada2i.demo_table(), root=str(tmp_path / "store"))
    by_frame = calls.predict(table)
    assert calls.predict(tmp_path / "table.parquet").equals(by_frame)
    assert calls.predict(features).num_rows == ada2i.demo_table().num_rows


def test_the_module_takes_the_batch_of_a_frame(calls: ada2i.LoadedModel, table: pa.Table) -> None:
    batch = calls.batch(table)
    logits = calls.module(batch).logits
    assert [modality for modality in batch.features] == ["text", "audio"]
    chosen = [calls.labels[index] for index in logits.argmax(dim=1).tolist()]
    assert chosen == calls.predict(table)["label"].to_pylist()
    assert calls.config.training.epochs == 2


def test_a_copy_is_the_same_model(calls: ada2i.LoadedModel, table: pa.Table, tmp_path: Path) -> None:
    copy = calls.save_pretrained(tmp_path / "copy")
    assert calls.save_pretrained(tmp_path / "copy") == copy  # a second time changes nothing
    loaded = ada2i.LoadedModel.from_pretrained(copy)
    assert loaded.predict(table).equals(calls.predict(table))
    assert ada2i.load(copy).version == calls.version
    (copy / "weights.safetensors").write_bytes(b"other")
    with pytest.raises(DataError, match=r"weights\.safetensors"):
        ada2i.load(copy)


def test_a_frame_trains_like_its_file(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(ada2i.demo_table(), tmp_path / "calls.parquet")
    options: dict[str, Any] = {"root": str(tmp_path / "store"), "seeds": [1], "progress": False}
    by_frame = ada2i.train(ada2i.demo_table().to_pandas(), {"training.epochs": 1}, dataset="calls", **options)
    renamed = ada2i.train(tmp_path / "calls.parquet", {"training.epochs": 1}, dataset="other", **options)
    assert renamed.result.features.dataset == "other"
    by_file = ada2i.train(tmp_path / "calls.parquet", {"training": {"epochs": 1}}, **options)
    assert by_frame.scores == by_file.scores
    manifest = storage.get(storage.join(by_frame.result.features.uri, "manifest.json")).decode()
    assert "a frame in memory" in manifest
    assert str(tmp_path.parent) not in manifest.replace(str(tmp_path), "")


def test_a_run_resumes_by_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ada2i.training.reporter import EventReporter

    options: dict[str, Any] = {"root": str(tmp_path), "seeds": [1], "progress": False, "run_id": "resumed"}
    config = {"training.epochs": 4, "resources.checkpoint_minutes": 0.0}

    def interrupt(self: EventReporter, seed: int, record: Any) -> None:
        if record.epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EventReporter, "epoch", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ada2i.train("demo", config, **options)
    resumed = ada2i.train("demo", config, **options)
    whole = ada2i.train("demo", config, **options | {"run_id": "whole"})
    assert [record.dev_loss for record in _history(resumed.result)] == [
        record.dev_loss for record in _history(whole.result)
    ]
    assert resumed.scores == whole.scores


def _history(result: RunResult) -> Any:
    return result.seeds[0].history


@pytest.mark.parametrize(
    ("call", "error", "expected"),
    [
        (lambda: ada2i.train([1, 2]), DataError, "must be a path, a pandas or polars DataFrame, or a pyarrow.Table"),
        (lambda: ada2i.train("demo", {"training.epoch": 2}), ConfigError, "did you mean `training.epochs`"),
        (lambda: ada2i.train("demo", split_by="time"), ConfigError, "`split_by` is an option for frames"),
        (lambda: ada2i.train("demo", modalities="tx"), ConfigError, "tx"),
        (lambda: ada2i.train("demo", "corrected"), ConfigError, "`config` must be a mapping"),  # type: ignore[arg-type]
        (lambda: ada2i.train("demo", seeds=3), ConfigError, "`seeds` must be a list"),  # type: ignore[arg-type]
        (lambda: ada2i.train("demo", seeds="12"), ConfigError, "`seeds` must be a list"),  # type: ignore[arg-type]
        (lambda: ada2i.train("demo", {"resources.workers": 2}), ConfigError, "`resources.workers` must be 1"),
        (lambda: ada2i.train(pd.DataFrame({"text": ["a"]})), DataError, "^The frame must have the column"),
        (lambda: ada2i.train(pd.DataFrame({"dialogue_id": ["a", 1]})), DataError, "values of one type"),
        (lambda: ada2i.train("demo", seeds=[1.7]), ConfigError, "`seeds` must be a list"),  # type: ignore[list-item]
        (lambda: ada2i.baseline(pd.DataFrame([[1, 2]], columns=["a", "a"])), DataError, "a name of its own"),
        (lambda: ada2i.baseline(pd.Series([1, 2])), DataError, "must be a path, a pandas or polars DataFrame"),
        (lambda: ada2i.load("calls@9"), NotFoundError, "calls"),
        (lambda: ada2i.load(Path("nowhere")), NotFoundError, "nowhere"),
    ],
)
def test_wrong_input_is_refused_before_any_work(
    call: Callable[[], object],
    error: type[Exception],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ADA2I_ROOT", raising=False)
    with pytest.raises(error, match=re.escape(expected).replace(r"\^", "^")):
        call()
    assert not list(tmp_path.glob("ada2i-store/runs/*"))


def test_a_frame_that_lacks_a_column_is_called_the_frame(calls: ada2i.LoadedModel, table: pa.Table) -> None:
    with pytest.raises(DataError, match=r"^The frame must have the column `audio_feat` with vectors of width 24"):
        calls.predict(table.drop_columns("audio_feat"))


def test_a_source_without_speakers_is_pointed_out(
    calls: ada2i.LoadedModel, table: pa.Table, caplog: pytest.LogCaptureFixture
) -> None:
    calls.predict(table)
    assert "speaker" not in caplog.text
    calls.predict(table.drop_columns("speaker"))
    assert "has no column `speaker`" in caplog.text


def test_polars_categories_are_text(calls: ada2i.LoadedModel, table: pa.Table) -> None:
    frame = pl.from_arrow(pa.table(table.to_pydict()))
    assert isinstance(frame, pl.DataFrame)
    found = calls.predict(frame.with_columns(pl.col("speaker").cast(pl.Categorical)))
    assert found["label"].to_list() == calls.predict(table)["label"].to_pylist()


def test_trainings_in_threads_and_the_callers_draws_do_not_disturb_each_other(tmp_path: Path) -> None:
    def trained(seed: int) -> float:
        options: dict[str, Any] = {"root": tmp_path, "progress": False}
        return ada2i.train("demo", {"training.epochs": 1}, seeds=[seed], **options).scores["weighted_f1"].mean

    torch.manual_seed(5)
    undisturbed = torch.rand(3)
    torch.manual_seed(5)
    alone = [trained(seed) for seed in (1, 2)]
    assert torch.equal(torch.rand(3), undisturbed)
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(trained, (1, 2))) == alone


def test_a_folder_in_the_working_directory_is_a_copy(
    calls: ada2i.LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    calls.save_pretrained("calls-model")
    assert ada2i.load("calls-model").version == calls.version
