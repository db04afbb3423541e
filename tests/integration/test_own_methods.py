"""Classes of a user's own, outside of the package: trained by a study on Ray, on several ranks, and resumed."""

import json
import os
from pathlib import Path

import pytest
import torch

from ada2i import storage
from ada2i.importers.demo import write_demo_corpus
from ada2i.jobs import code
from ada2i.jobs.cluster import CODE
from ada2i.records import RunResult
from ada2i.studies.rows import Study
from tests.integration.test_ranks import NO_DROPOUT, PUBLISHED_RATE, TWENTY_STEPS, kill_after_epoch, largest_gap, train
from tests.integration.test_train import run_cli
from tests.own import FIELDS, write_examples
from tests.runs import run_uri

OWN = {name: value for name, value in TWENTY_STEPS.items() if not name.startswith("balance.")} | dict(FIELDS)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_demo_corpus(tmp_path_factory.mktemp("root").as_uri())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the examples, on the path of new processes."""
    write_examples(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", os.getcwd())]))
    return tmp_path


@pytest.mark.parametrize("preset", ["reference", "corrected"])
def test_workers_change_nothing_but_rounding(folder: Path, features: str, preset: str) -> None:
    overrides = OWN | NO_DROPOUT | PUBLISHED_RATE
    one, two = (train(folder / str(world), features, world, overrides, preset) for world in (1, 2))
    assert largest_gap(one, two) < 1e-5


def test_resumed_equals_uninterrupted_to_the_last_bit(folder: Path, features: str) -> None:
    three = {**OWN, "training.epochs": 3}
    whole = train(folder / "whole", features, 2, three, "corrected")
    kill_after_epoch(folder / "parts", features, 2, epochs=3, killed_after=1, preset="corrected", more=OWN)
    resumed = train(folder / "parts", features, 2, three, "corrected")
    assert len(json.loads((folder / "parts" / "replica-0.json").read_text())) < 30  # the rest was resumed
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.integration
def test_a_study_compares_own_classes_with_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a private Ray head: it finds the classes in the folder of the command."""
    write_examples(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    monkeypatch.delenv(CODE, raising=False)
    out, root = tmp_path / "out", tmp_path / "root"
    own = {name: value for name, value in FIELDS.items() if name != "balance.options.factor"}
    ours = {"model.encoder": "relational", "model.fusion": "ada2i", "balance.method": "unimodal"}
    varied = [text for field, name in own.items() for text in ("--vary", f"{field}={ours[field]},{name}")]
    options = ["--presets", "corrected", "--modalities", "tav", "--seeds", "1", "--set", "training.epochs=1"]
    run_cli(monkeypatch, "reproduce", "demo", "demo", *options, *varied, "--root", str(root), "--out", str(out))
    study = Study.model_validate_json((out / "table.json").read_bytes())
    by_change = {row.cell.change: row for row in study.rows}
    assert all(row.measured is not None for row in study.rows)
    digests = code.digests(str(name) for name in own.values())
    for field, name in own.items():
        assert by_change[f"{field}={ours[field]}"].cell.run_id == by_change[""].cell.run_id
        place = run_uri(root.as_uri(), str(by_change[f"{field}={name}"].cell.run_id))
        result = RunResult.load(storage.join(place, "result.json"))
        assert result.own_code == {name: digests[str(name)]}
        assert any(f"{name} (source SHA-256 {digests[str(name)]})" in note for note in study.notes)
