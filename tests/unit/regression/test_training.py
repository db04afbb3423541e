"""Regression from a table to predictions: training, resume, refusals, the report, the gate and the Python API."""

import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import ada2i
from ada2i import storage, usecases
from ada2i.cli.training import show_result
from ada2i.config import BALANCE_METHODS, REGRESSION_METHODS, TrainConfig
from ada2i.errors import Ada2iError, ConfigError, DataError, PreemptedError
from ada2i.jobs.events import Event
from ada2i.presets import resolve
from ada2i.store import Store
from ada2i.training.request import TrainSpec
from tests.own import write_examples
from tests.unit.regression.talks import numbers
from tests.unit.training.test_here import Listening

QUICK = {"task": "regression", "training.epochs": 3, "training.seeds": [1]}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("table") / "talks.parquet"
    numbers().to_parquet(path, index=False)
    return str(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[ada2i.Run, str]:
    """A run of two seeds, and its root."""
    root = str(tmp_path_factory.mktemp("root"))
    return ada2i.train(numbers(), {"task": "regression"}, seeds=[1, 2], root=root, progress=False), root


def test_training_predicts_better_than_the_mean(trained: tuple[ada2i.Run, str]) -> None:
    run, _ = trained
    always, *linear = run.result.baselines
    assert always.regression is not None
    assert always.name == "always the mean of train"
    assert run.scores["mae"].mean < 0.7 * always.regression.mae
    assert run.scores["correlation"].mean > 0.7
    assert run.scores["acc2"].mean > always.regression.acc2
    assert [row.name for row in linear] == ["linear on text", "linear on audio", "linear on text + audio"]
    best = run.floor
    assert best is not None
    assert best.regression is not None
    assert best.name == "linear on text + audio"
    assert best.regression.mae < 0.35 * always.regression.mae  # the target is linear in the vectors
    for test in run.result.tests:
        assert test.regression is not None
        assert test.regression.utterances == 96
    for seed in run.result.seeds:
        assert seed.dev.mae == pytest.approx((seed.history[-1].model_extra or {})["dev_mae"])
    chosen = min(run.result.seeds, key=lambda seed: seed.dev.mae or 0.0)
    assert run.result.best_seed == chosen.seed


def test_stored_predictions_give_the_scores(trained: tuple[ada2i.Run, str]) -> None:
    run, _ = trained
    test = run.result.tests[0]
    uri = storage.join(Store.open(trained[1]).run(run.result.run_id).seed(test.seed).uri, "predictions.parquet")
    rows = pq.read_table(storage.local_path(uri) or "").to_pandas()
    truth = numbers().set_index(["dialogue_id", "utterance_index"])["target"]
    targets = truth.loc[list(zip(rows["dialogue_id"], rows["utterance_index"], strict=True))].to_numpy()
    assert test.regression is not None
    assert np.abs(rows["value"] - targets).mean() == pytest.approx(test.regression.mae, abs=1e-5)
    classes = np.where(rows["value"] <= np.float32(-0.1), 0, np.where(rows["value"] <= np.float32(0.1), 1, 2))
    assert rows["prediction"].tolist() == classes.tolist()
    assert (classes == rows["label"]).mean() == pytest.approx(test.scores.accuracy)


def test_report_card_and_terminal_show_the_scores(
    trained: tuple[ada2i.Run, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = trained
    monkeypatch.setenv("COLUMNS", "200")
    mae = f"{run.scores['mae'].mean:.4f}"
    folder = storage.local_path(run.result.run_uri) or ""
    page, card = (Path(folder, name).read_text() for name in ("report.html", "README.md"))
    show_result(run.result, "doc@1")
    for text in (page, card, capsys.readouterr().out):
        assert mae in text
        for part in ("corr", "Acc-2", "Acc-7", "always the mean of train", "Not better than the linear floor: the MAE"):
            assert part in text, part


def test_a_loaded_model_predicts_values(trained: tuple[ada2i.Run, str]) -> None:
    run, root = trained
    model = ada2i.load(run.register("numbers"), root)
    found = model.predict(numbers())
    assert isinstance(found, pd.DataFrame)
    assert found["value"].dtype == np.float32
    assert not [name for name in found.columns if name.startswith("p_")]
    parts = [name for name in found.columns if name.startswith("contribution_")]
    np.testing.assert_allclose(found[parts].sum(axis=1), found["value"], atol=1e-5)
    missing = numbers()["audio_feat"].isna().to_numpy()
    assert missing.any()
    assert not found["contribution_audio"][missing].any()
    logits = model.module(model.batch(numbers())).logits
    assert logits.shape == (480, 1)
    labels = np.array(["negative", "neutral", "positive"])
    assert found["label"].tolist() == labels[model.module.chances(logits).argmax(dim=1).numpy()].tolist()


def test_the_gate_and_comparisons_work_on_the_classes(trained: tuple[ada2i.Run, str]) -> None:
    run, root = trained
    other = ada2i.train(numbers(), QUICK, root=root, progress=False)
    first, second = run.register("twin"), other.register("twin")
    store = Store.open(root)
    assert usecases.compare(first, second, store).differences["weighted_f1"].difference != 0
    judge = partial(usecases.promote, store=store, gate=usecases.Gate({}, by="test"), hooks=usecases.Hooks())
    alone = judge(first, override="the first one").verdict
    assert alone is not None
    floor = next(rule for rule in alone.judgement.results if rule.rule == "over-floor")
    assert not floor.passed
    against = judge(second).verdict
    assert against is not None
    assert against.judgement.champion == 1


def test_a_stopped_run_resumes_exactly(tmp_path: Path, table: str) -> None:
    def stop(event: Event) -> None:
        if event["kind"] == "epoch" and event["record"]["epoch"] == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    spec = TrainSpec(features=table, overrides={**QUICK, "training.selection": "best"}, local=True)
    with pytest.raises(PreemptedError):
        usecases.train_run(spec, Store.open(str(tmp_path)), run_id="r", hooks=Listening(stop))
    resumed = usecases.train_run(spec, Store.open(str(tmp_path)), run_id="r", hooks=usecases.Hooks())
    whole = usecases.train_run(spec, Store.open(str(tmp_path)), run_id="whole", hooks=usecases.Hooks())
    assert resumed.test_summary == whole.test_summary
    (seed,) = whole.seeds
    errors = [(epoch.model_extra or {})["dev_mae"] for epoch in seed.history]
    assert seed.best_epoch == 1 + errors.index(min(errors))
    assert "the epoch with the lowest dev MAE" in whole.protocol


@pytest.mark.parametrize(
    "change",
    [
        {"model.encoder.kind": "transformer", "model.encoder.input_dropout": 0.0},
        {"balance.method": "none", "resources.accumulate": 2},
        {"model.prediction": "mlp", "loss.modal": 1.0},
        {"model.amw.normalise": "classes", "model.amw.bias": True, "model.amw.weights": "equal"},
        {"ablations.no_afw": True, "ablations.no_modulation": True, "balance.method": "ada2i"},
    ],
)
def test_other_parts_of_the_model_predict_numbers(tmp_path: Path, table: str, change: dict[str, Any]) -> None:
    spec = TrainSpec(features=table, overrides={**QUICK, **change}, local=True)
    result = usecases.train_run(spec, Store.open(str(tmp_path)), run_id="r", hooks=usecases.Hooks())
    assert result.test_summary["mae"].mean < 3
    assert all(epoch.loss > 0 for epoch in result.seeds[0].history)


def refused(tmp_path: Path, features: pd.DataFrame, **overrides: object) -> str:
    features.to_parquet(tmp_path / "talks.parquet", index=False)
    spec = TrainSpec(features=str(tmp_path / "talks.parquet"), overrides={**QUICK, **overrides}, local=True)
    with pytest.raises(Ada2iError) as problem:
        usecases.train_run(spec, Store.open(str(tmp_path / "root")), run_id="r", hooks=usecases.Hooks())
    assert isinstance(problem.value, ConfigError | DataError)
    assert not list((tmp_path / "root").glob("runs/*"))
    return problem.value.message


def test_features_without_targets_are_refused(tmp_path: Path) -> None:
    plain = numbers().assign(label=lambda rows: np.where(rows["target"] > 0, "positive", "negative"))
    message = refused(tmp_path, plain.drop(columns="target"))
    assert "must hold targets in train for `task=regression`, but has no column `target`" in message
    plain.loc[plain["split"] == "test", "target"] = None
    assert "must hold targets in test" in refused(tmp_path, plain)


def test_other_classes_are_refused(tmp_path: Path) -> None:
    message = refused(tmp_path, numbers().assign(label=lambda rows: np.where(rows["target"] > 0, "joy", "anger")))
    assert "must be negative, neutral, positive; or negative, positive; or negative, non-negative" in message
    assert "but are anger, joy" in message


def config(preset: str = "corrected", **overrides: object) -> TrainConfig:
    fields = {name.replace("__", "."): value for name, value in overrides.items()}
    return resolve(preset=preset, settings="default", overrides={"task": "regression", **fields})


@pytest.mark.parametrize("method", sorted({*BALANCE_METHODS} - {*REGRESSION_METHODS}))
def test_methods_that_need_classes_are_refused(method: str) -> None:
    with pytest.raises(ConfigError, match=f"none or unimodal, but it is {method}"):
        config(balance__method=method)


@pytest.mark.parametrize("method", REGRESSION_METHODS)
def test_methods_without_classes_are_accepted(method: str) -> None:
    assert config(balance__method=method).loss.class_balance == 0


def test_presets_name_what_they_lack() -> None:
    with pytest.raises(ConfigError, match="none or unimodal, but it is ada2i"):
        config("paper")
    assert config("paper", balance__method="none").regression
    assert config("reference", balance__method="none").regression
    with pytest.raises(ConfigError, match=r"needs `loss\.class_balance=0`"):
        config(loss__class_balance=0.3)


def test_a_config_of_classification_is_stored_as_before() -> None:
    plain = resolve(preset="corrected", settings="default", overrides={})
    assert "task" not in plain.model_dump()
    assert TrainConfig.model_validate(plain.model_dump()) == plain
    assert TrainConfig.model_validate(config().model_dump()).task == "regression"


def test_an_encoder_and_a_fusion_of_ones_own_predict_numbers(
    tmp_path: Path, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_examples(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    own = {"model.encoder": "doc_encoder:Gru", "model.fusion": "doc_fusion:Concat"}
    spec = TrainSpec(features=table, overrides={**QUICK, **own}, local=True)
    result = usecases.train_run(spec, Store.open(str(tmp_path)), run_id="r", hooks=usecases.Hooks())
    assert result.test_summary["mae"].mean < 3
