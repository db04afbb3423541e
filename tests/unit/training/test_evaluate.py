"""The one evaluation on test, and that of the baselines."""

import tempfile
from pathlib import Path

import pytest

from ada2i import storage
from ada2i.data.manifest import open_features
from ada2i.evaluation.calibration import fit_temperature
from ada2i.importers.demo import write_demo_corpus
from ada2i.inference.floor import baselines
from ada2i.inference.models import load_checkpoint
from ada2i.inference.predict import predict_logits
from ada2i.loader.split_data import open_split
from ada2i.store import Store
from ada2i.training import evaluate
from ada2i.training.evaluate import evaluate_run
from ada2i.training.fit import fit
from ada2i.training.request import TrainSpec, prepare
from tests.unit.training.small import Listener, tiny_task


def test_test_is_opened_once_for_the_model_and_once_for_the_baselines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    task = tiny_task(tmp_path, "unused")
    features = open_features(write_demo_corpus((tmp_path / "store").as_uri(), dialogues=26))
    overrides = {"training.seeds": [task.seed], "training.epochs": 1, "model.hidden_dim": 10, "model.afw.rank": 2}
    spec = TrainSpec(features=features.uri, preset="reference", settings="demo", overrides=overrides)
    run = Store.open(str(tmp_path / "store")).run("run")
    prepare(spec, root=str(tmp_path / "store"), run_id="run")
    request = run.request()
    fit(
        type(task)(
            request.config, request.features, task.seed, task.train, task.dev, run.seed(task.seed).uri, task.device
        ),
        Listener(),
    )
    baselines.cache_clear()
    first = evaluate_run(run.uri)
    names = [found.name for found in first.baselines]
    assert names[0].startswith("always ")
    assert names[1:] == ["linear on text", "linear on audio", "linear on visual", "linear on text + audio + visual"]
    counts = features.manifest.splits["test"].class_counts
    majority = max(range(len(counts)), key=lambda c: features.manifest.splits["train"].class_counts[c])
    assert first.baselines[0].accuracy == pytest.approx(counts[majority] / sum(counts))

    calibration, dev = first.tests[0].calibration, open_split(features, "dev", request.config.model.modalities)
    assert calibration is not None
    labels, logits = predict_logits(load_checkpoint(first.seeds[0].checkpoint_uri), dev, 4)
    assert calibration.utterances == (labels >= 0).sum()
    assert calibration.temperature == pytest.approx(fit_temperature(logits.numpy(), labels), rel=1e-4)
    assert sum(each.utterances for each in calibration.after) == first.tests[0].scores.utterances
    assert calibration.risk[0].risk == pytest.approx(1 - first.tests[0].scores.accuracy)

    def opened_again(*_: object, **__: object) -> None:
        pytest.fail("the test split was opened again")

    for name in ("open_split", predict_logits.__name__):
        monkeypatch.setattr(evaluate, name, opened_again)
    monkeypatch.setattr("ada2i.inference.floor.open_split", opened_again)
    baselines.cache_clear()
    storage.delete(run.result_uri)
    assert evaluate_run(run.uri) == first
