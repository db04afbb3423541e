"""Raw recordings to predict: extracted by the encoders of training, without labels or splits."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ada2i import storage, usecases
from ada2i.data.manifest import open_features
from ada2i.errors import ConfigError, DataError
from ada2i.extraction.config import resolve
from ada2i.extraction.request import ExtractionRequest, prepare
from ada2i.prediction.request import PredictSpec, raw_corpus
from ada2i.records import FeatureInfo
from ada2i.registry.pull import pull
from ada2i.registry.versions import find
from ada2i.store import Store
from tests.unit.extraction.talks import OWN, extract_here, extracted, prepared, talk, write_table
from tests.unit.prediction.tiny import registered, run, table_of

pytest.importorskip("transformers")

ALLOWED = tuple(str(name) for name in OWN.values())


@pytest.fixture
def root(tmp_path: Path) -> str:
    """A root with a version that was trained on talks, with settings that are not the default."""
    talk(tmp_path / "talks")
    made = extracted(tmp_path / "talks", tmp_path / "store", overrides={"encoders.audio.scale": 2.0})
    registered((tmp_path / "store").as_uri(), open_features(made.features).info())
    return (tmp_path / "store").as_uri()


def unlabelled(folder: Path) -> Path:
    rows = [{**row, "label": "", "split": ""} for row in talk(folder, 5)]
    write_table(folder, rows)
    return folder


def vectors(root: str, folder: Path) -> str:
    """Extract a corpus by the version's encoders; return the URI of the table."""
    spec = raw_corpus(PredictSpec(version="tiny", source=f"corpus:folder:{folder}", allow_encoders=ALLOWED), root=root)
    assert spec is not None
    uri = prepare(spec, root=root, run_id="raw").uri
    request = ExtractionRequest.load(storage.join(uri, "request.json"))
    return extract_here(uri, request).features


def read(uri: str) -> pa.Table:
    return pq.read_table(pa.BufferReader(storage.get(uri)))


def test_recordings_without_labels_are_predicted(root: str, tmp_path: Path) -> None:
    table = vectors(root, unlabelled(tmp_path / "new"))
    found = table_of(run(root, table, named="corpus:folder:new"))
    rows = read(table)
    assert found["utterance_id"].to_pylist() == rows["utterance_id"].to_pylist()
    assert found.num_rows == 10
    assert found["true_label"].null_count == found["split"].null_count == 10


@pytest.mark.parametrize("missing", ["text", "audio", "visual"])
def test_a_corpus_without_a_needed_modality_is_refused_before_extraction(
    root: str, tmp_path: Path, missing: str
) -> None:
    rows = [row | {"video" if missing == "visual" else missing: ""} for row in talk(tmp_path / "new", 5)]
    write_table(tmp_path / "new", rows)
    spec = PredictSpec(version="tiny", source=f"corpus:folder:{tmp_path / 'new'}", allow_encoders=ALLOWED, local=True)
    with pytest.raises(DataError, match=rf"has no {missing}, only .*predict with a model that does not need it"):
        usecases.predict(spec, Store.open(root), hooks=usecases.Hooks(), extraction_run="raw")
    assert not storage.exists(storage.join(root, "extraction", "runs", "raw", "request.json"))


def test_encoders_and_settings_are_those_of_training(root: str, tmp_path: Path) -> None:
    wanted = PredictSpec(version="tiny", source="corpus:folder:calls", workers=3, allow_encoders=ALLOWED)
    spec = raw_corpus(wanted, root=root)
    assert spec is not None
    assert (spec.kind, spec.location, spec.labelled) == ("folder", "calls", False)
    assert spec.encoders == OWN
    assert spec.overrides["encoders.audio.scale"] == 2.0
    assert spec.overrides["workers"] == 3
    table = read(vectors(root, tmp_path / "talks"))
    assert table["audio_feat"][0].as_py()[0] == 2 * 0.3 * 16_000


def test_other_encoders_are_refused(root: str, tmp_path: Path) -> None:
    other = extracted(tmp_path / "talks", tmp_path / "store", "other", {"encoders.text.scale": 3.0})
    with pytest.raises(
        DataError, match=r"The text vectors of the source must be of the encoder that tiny@1 was trained"
    ):
        run(root, other.features)


def with_encoder(root: str, spec: str, **settings: Any) -> FeatureInfo:
    """Return the facts about the version's features, with another text encoder in their recipe."""
    info = find(root, "tiny").features
    assert info.recipe is not None
    config = json.loads(json.dumps(info.recipe.config))
    config["encoders"]["text"] = {"spec": spec, "settings": settings}
    return info.model_copy(update={"recipe": info.recipe.model_copy(update={"config": config})})


@pytest.mark.parametrize("copy", [False, True], ids=["registered", "pulled"])
@pytest.mark.parametrize("spec", ["subprocess:Popen", "subprocess:run", "marks_at_import:Encoder"])
def test_code_that_a_version_names_is_not_run(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, copy: bool
) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "marks_at_import.py").write_text(f"open({str(marker)!r}, 'w')")
    monkeypatch.syspath_prepend(str(tmp_path))
    arguments = {} if spec.startswith("marks") else {"args": ["touch", str(marker)]}
    store = (tmp_path / "other").as_uri()
    registered(store, with_encoder(root, spec, **arguments))
    version = str(pull(store, "tiny", tmp_path / "copy")) if copy else "tiny"
    wanted = PredictSpec(version=version, source=f"corpus:folder:{tmp_path / 'talks'}", allow_encoders=ALLOWED)
    with pytest.raises(ConfigError, match=rf"text encoder of tiny@1 .* is '{spec}', code .* `--allow-encoder {spec}`"):
        usecases.predict(wanted, Store.open(store), hooks=usecases.Hooks(), extraction_run="x")
    assert not marker.exists()


def test_each_of_several_encoders_must_be_allowed(root: str, tmp_path: Path) -> None:
    store = (tmp_path / "other").as_uri()
    name = f"minilm,{OWN['text']}"
    registered(store, with_encoder(root, name, minilm={"layers": "1-2"}))
    wanted = PredictSpec(version="tiny", source="corpus:folder:calls", allow_encoders=ALLOWED)
    found = raw_corpus(wanted, root=store)
    assert found is not None
    assert found.encoders["text"] == name
    assert resolve(found.encoders, found.overrides).encoders["text"].settings == {"minilm": {"layers": "1-2"}}
    for number, other in enumerate(("minilm,subprocess:Popen", "hf:some/model,subprocess:Popen")):
        store = (tmp_path / str(number)).as_uri()
        registered(store, with_encoder(root, other))
        with pytest.raises(ConfigError, match=r"is 'subprocess:Popen', code .* `--allow-encoder subprocess:Popen`"):
            raw_corpus(wanted, root=store)


def test_a_version_may_name_encoders_of_this_package(root: str, tmp_path: Path) -> None:
    store = (tmp_path / "other").as_uri()
    for number, spec in enumerate(("minilm", "hf:some/model")):
        registered(store + str(number), with_encoder(root, spec))
        wanted = PredictSpec(version="tiny", source="corpus:folder:calls", allow_encoders=ALLOWED)
        found = raw_corpus(wanted, root=store + str(number))
        assert found is not None
        assert found.encoders["text"] == spec


@pytest.mark.parametrize("config", [{}, {"encoders": []}, {"encoders": {"text": "minilm"}}, {"encoders": {}}])
def test_a_recipe_that_is_none_is_refused(root: str, tmp_path: Path, config: dict[str, Any]) -> None:
    store, info = (tmp_path / "other").as_uri(), find(root, "tiny").features
    assert info.recipe is not None
    registered(store, info.model_copy(update={"recipe": info.recipe.model_copy(update={"config": config})}))
    with pytest.raises(DataError, match="tiny@1 must record encoders and media settings"):
        raw_corpus(PredictSpec(version="tiny", source="corpus:folder:calls"), root=store)


def test_what_is_no_raw_corpus_needs_no_extraction(root: str) -> None:
    assert raw_corpus(PredictSpec(version="tiny", source="table.parquet"), root=root) is None


def test_a_version_of_imported_features_knows_no_encoders(root: str, tmp_path: Path) -> None:
    made = extracted(tmp_path / "talks", tmp_path / "store", overrides={"encoders.audio.scale": 2.0})
    info = open_features(made.features).info().model_copy(update={"recipe": None})
    other = (tmp_path / "other").as_uri()
    registered(other, info)
    with pytest.raises(DataError, match=r"tiny@1 must record the encoders of its features"):
        raw_corpus(PredictSpec(version="tiny", source="corpus:folder:calls"), root=other)


def test_training_still_needs_labels(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Column `split` of .* must hold one of train, dev"):
        prepared(unlabelled(tmp_path / "new"), tmp_path / "store", "run")
