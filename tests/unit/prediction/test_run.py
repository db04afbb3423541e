"""Whole predictions: as evaluation has it, the same bytes however they come about, and every byte is checked."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ada2i import storage
from ada2i.data.manifest import FeatureSet
from ada2i.errors import ConfigError, DataError, IntegrityError, NotFoundError, ResourceError
from ada2i.evaluation.metrics import confusion_matrix, scores
from ada2i.inference.models import load_model
from ada2i.inference.predict import predict_split
from ada2i.inference.versions import load_config
from ada2i.loader.split_data import open_split
from ada2i.prediction.job import drive
from ada2i.prediction.records import DONE, REQUEST, SOURCE, PredictionRequest
from ada2i.prediction.request import PredictSpec, prepare
from ada2i.records import FeatureInfo, Recipe
from ada2i.registry.pull import pull
from ada2i.registry.versions import find, version_uri
from tests.runs import job_of
from tests.unit.data.tables import written
from tests.unit.prediction.tiny import contents, manifest_of, registered, run, table_of


@pytest.mark.parametrize("preset", ["corrected", "reference", "paper"])
@pytest.mark.parametrize("split", ["test", "train"])
def test_as_evaluation_predicts(
    root: str, features: FeatureSet, preset: str, split: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", storage.local_path(root))
    version = registered(root, features.info(), preset)
    uri = run(root, features.uri, split=split)
    table, home = table_of(uri), version_uri(root, version)
    data = open_split(features, split, load_config(home, version).model.modalities)
    labels, probabilities = predict_split(load_model(home, version), data, batch_dialogues=7)
    names = features.manifest.labels
    found = np.stack([table[f"p_{name}"].to_numpy() for name in names], axis=1)
    np.testing.assert_allclose(found, probabilities, atol=1e-6)
    assert table["dialogue_id"].to_pylist() == list(np.repeat(data.dialogue_ids, data.lengths))
    assert table["label"].to_pylist() == [names[place] for place in probabilities.argmax(axis=1)]
    assert table["true_label"].to_pylist() == [names[place] for place in labels]
    expected = scores(confusion_matrix(labels, probabilities.argmax(axis=1), len(names)), names, split)
    manifest = manifest_of(uri)
    assert manifest.scores == (expected,)
    assert manifest.utterances == table.num_rows == len(labels)
    assert manifest.dialogues == len(data.lengths)
    assert manifest.predicted == {name: table["label"].to_pylist().count(name) for name in names}
    assert set(table["model"].to_pylist()) == {"tiny"}
    assert set(table["version"].to_pylist()) == {1}


@pytest.mark.parametrize("preset", ["corrected", "reference"])
def test_a_killed_prediction_goes_on_and_ends_in_the_same_bytes(root: str, features: FeatureSet, preset: str) -> None:
    registered(root, features.info(), preset)
    whole = run(root, features.uri, out=f"{root}/elsewhere")
    expected = contents(whole)
    assert len(expected) > 3
    with pytest.raises(KeyboardInterrupt, match="killed"):
        run(root, features.uri, after=2)
    uri = prepare(PredictSpec(version="tiny", source=features.uri), root=root).uri
    assert [name for name in storage.children(uri) if name.startswith("part")] != []
    assert run(root, features.uri) == uri
    found = contents(uri)
    del found["manifest.json"], expected["manifest.json"]  # which have other ids
    assert found == expected
    assert set(storage.children(uri)) == {*found, REQUEST, "manifest.json"}


def test_repeating_a_complete_prediction_checks_it(root: str, features: FeatureSet) -> None:
    registered(root, features.info())
    uri = run(root, features.uri)
    before = contents(uri)
    assert prepare(PredictSpec(version="tiny@1", source=features.uri), root=root).uri == uri
    assert contents(uri) == before
    for name in before:
        place = storage.join(uri, name)
        storage.put(place, flipped(before[name]))
        with pytest.raises(DataError, match=name):
            prepare(PredictSpec(version="tiny", source=features.uri), root=root)
        storage.put(place, before[name])


def test_what_a_crash_behind_the_manifest_leaves_is_deleted(root: str, features: FeatureSet) -> None:
    registered(root, features.info())
    uri = run(root, features.uri)
    for again in (
        lambda: prepare(PredictSpec(version="tiny", source=features.uri), root=root),
        lambda: drive(uri, "0", job_of(uri).request),
    ):
        for folder in (SOURCE, DONE):
            storage.put(storage.join(uri, folder, "left"), b"over")
        again()
        assert not {SOURCE, DONE} & set(storage.children(uri))


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def test_a_flipped_byte_in_any_file_of_the_version_is_refused(root: str, features: FeatureSet) -> None:
    version = registered(root, features.info())
    home = version_uri(root, version)
    for name in (*version.files, "manifest.json"):
        place = storage.join(home, name)
        data = storage.get(place)
        storage.put(place, flipped(data))
        with pytest.raises(DataError, match=name):
            prepare(PredictSpec(version="tiny", source=features.uri), root=root)
        storage.put(place, data)
    assert storage.children(storage.join(root, "predictions")) == []


def test_a_flipped_byte_in_any_shard_is_refused(root: str, features: FeatureSet) -> None:
    registered(root, features.info())
    for number, entry in enumerate(features.manifest.shards):
        place = storage.join(features.uri, entry.name)
        data = storage.get(place)
        storage.put(place, flipped(data))
        with pytest.raises(IntegrityError, match=entry.name):
            run(root, features.uri, out=f"{root}/out-{number}")
        storage.put(place, data)


def test_weights_that_change_behind_the_request_are_refused(root: str, features: FeatureSet) -> None:
    version = registered(root, features.info())
    uri = prepare(PredictSpec(version="tiny", source=features.uri), root=root).uri
    place = storage.join(version_uri(root, version), "weights.safetensors")
    storage.put(place, flipped(storage.get(place)))
    request = PredictionRequest.load(storage.join(uri, REQUEST))
    with pytest.raises(IntegrityError, match=r"weights\.safetensors must hold"):
        load_model(request.version_uri, request.version)


def test_a_pulled_copy_predicts_the_same(root: str, features: FeatureSet, tmp_path: Path) -> None:
    registered(root, features.info())
    here = table_of(run(root, features.uri))
    folder = pull(root, "tiny@1", tmp_path / "copy")
    there = run((tmp_path / "other").as_uri(), features.uri, version=str(folder))
    assert table_of(there).equals(here)
    with pytest.raises(NotFoundError, match="nowhere must be a copy of a version, but has no manifest"):
        prepare(PredictSpec(version=str(tmp_path / "nowhere"), source=features.uri), root=root)


def other_widths(info: FeatureInfo) -> FeatureInfo:
    return info.model_copy(update={"widths": {"text": 9, "audio": 24, "visual": 20}})


def test_other_widths_are_refused(root: str, features: FeatureSet, tmp_path: Path) -> None:
    registered(root, other_widths(features.info()))
    with pytest.raises(DataError, match=r"must hold text vectors of width 9, .* tiny@1 .* vectors of width 32"):
        prepare(PredictSpec(version="tiny", source=features.uri), root=root)
    assert "predictions" not in written(tmp_path / "store")


def with_recipe(info: FeatureInfo, **digests: str) -> FeatureInfo:
    config: dict[str, Any] = {"encoders": {m: {"spec": "minilm", "settings": {}} for m in info.widths}, "media": {}}
    recipe = Recipe(config=config, encoders=dict.fromkeys(info.widths, "same") | digests)
    return info.model_copy(update={"recipe": recipe})


def test_other_encoders_are_refused(root: str, features: FeatureSet, monkeypatch: pytest.MonkeyPatch) -> None:
    info = features.info()
    registered(root, with_recipe(info))
    monkeypatch.setattr(FeatureSet, "info", lambda _: with_recipe(info, audio="another"))
    with pytest.raises(DataError, match=r"audio vectors .* with, minilm \(same\), but are of minilm \(another\)"):
        prepare(PredictSpec(version="tiny", source=features.uri), root=root)


def test_what_else_is_refused(root: str, features: FeatureSet, tmp_path: Path) -> None:
    registered(root, features.info())

    def spec(**more: Any) -> None:
        prepare(PredictSpec(**{"version": "tiny", "source": features.uri, **more}), root=root)

    with pytest.raises(NotFoundError, match="must hold a version tiny@9"):
        spec(version="tiny@9")
    with pytest.raises(NotFoundError, match="must hold the alias tiny@champion"):
        spec(version="tiny@champion")
    with pytest.raises(DataError, match=r"must have the split 'tset', but has dev, test, train"):
        spec(split="tset")
    with pytest.raises(ConfigError, match="`workers` must be 1 or more, but is 0"):
        spec(workers=0)
    with pytest.raises(ResourceError, match="needs 9999 CPUs"):
        spec(workers=9999)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(ConfigError, match=r"`out` must be an empty folder, .* holds something"):
        spec(out=str(tmp_path / "full"))
    run(root, features.uri, out=str(tmp_path / "out"))
    with pytest.raises(ConfigError, match=r"holds the predictions of tiny@1 for "):
        spec(split="test", out=str(tmp_path / "out"))


@pytest.mark.parametrize(
    "change",
    [
        {"out": "file:///elsewhere"},
        {"version_uri": "file:///elsewhere"},
        {"source": "another"},
        {"split": "test"},
        {"run_id": "other"},
        {"shards": ()},
    ],
)
def test_a_first_request_that_was_replaced_is_not_resumed(
    root: str, features: FeatureSet, change: dict[str, Any]
) -> None:
    registered(root, features.info())
    spec = PredictSpec(version="tiny", source=features.uri)
    job = prepare(spec, root=root, run_id="flow")
    assert prepare(spec, root=root, run_id="flow") == job
    place = storage.join(job.uri, REQUEST)
    storage.put(place, PredictionRequest.load(place).model_copy(update=change).stored())
    with pytest.raises(ConfigError, match="must be the request of this prediction, but names another"):
        prepare(spec, root=root, run_id="flow")


def test_a_prediction_resumes_with_its_first_version(root: str, features: FeatureSet) -> None:
    registered(root, features.info())
    job = prepare(PredictSpec(version="tiny", source=features.uri), root=root, run_id="flow")
    registered(root, features.info(), "reference")
    again = prepare(PredictSpec(version="tiny", source=features.uri), root=root, run_id="flow")
    assert (again, find(root, "tiny").number) == (job, 2)
