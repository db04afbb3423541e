"""Distillation: what teachers teach, runs that resume, and what is refused."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import ada2i
from ada2i import checkpoint, storage, usecases
from ada2i.balance.votes import encodings
from ada2i.data.manifest import FeatureSet, open_features
from ada2i.errors import ConfigError, DataError, IntegrityError
from ada2i.importers.demo import write_demo_corpus
from ada2i.importers.resolve import resolve_features
from ada2i.inference.models import load_model
from ada2i.inference.predict import predict_logits
from ada2i.loader.split_data import open_split
from ada2i.modalities import Modality
from ada2i.records import RunRequest, put_folder_file
from ada2i.registry.versions import find, version_uri
from ada2i.search.request import SearchSpec, prepare_search, search_options
from ada2i.store import Store
from ada2i.training.distillation import TARGETS, teacher_outputs
from ada2i.training.request import TrainSpec, prepare
from tests.runs import run_uri
from tests.unit.prediction.tiny import registered, write_rows
from tests.unit.training.small import TINY
from tests.unit.training.test_here import Listening

FIELDS: dict[str, Any] = {
    **{name: value for name, value in TINY.items() if not name.startswith("balance.")},
    "training.epochs": 3,
    "loss.distillation_temperature": 2.0,
}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return (tmp_path / "store").as_uri()


@pytest.fixture
def features(root: str) -> FeatureSet:
    """26 synthetic dialogues, and two versions that read them."""
    found = open_features(write_demo_corpus(root, dialogues=26))
    for preset in ("corrected", "paper"):
        registered(root, found.info(), preset)
    return found


def spec(features: FeatureSet, *teachers: str, **more: Any) -> TrainSpec:
    overrides = {**FIELDS, **more}
    return TrainSpec(features=features.uri, overrides=overrides, local=True, settings="demo", teachers=teachers)


def taught(root: str, run_id: str, features: FeatureSet) -> Any:
    uri = run_uri(root, run_id)
    request = RunRequest.load(storage.join(uri, "request.json"))
    return teacher_outputs(uri, request, open_split(features, "train", request.config.model.modalities))


def chances(root: str, name: str, features: FeatureSet) -> Any:
    model_name, _, number = name.partition("@")
    version = find(root, model_name, int(number))
    model = load_model(version_uri(root, version), version)
    return model.chances(predict_logits(model, open_split(features, "train", model.modalities), 7)[1])


def test_the_mean_of_the_teachers_is_stored_by_digest(root: str, features: FeatureSet) -> None:
    job = prepare(spec(features, "tiny@1", "tiny@2"), root=root, run_id="r")
    request = RunRequest.load(storage.join(job.uri, "request.json"))
    assert request.teaching is not None
    assert [teacher.name for teacher in request.teaching.teachers] == ["tiny@1", "tiny@2"]
    mean = (chances(root, "tiny@1", features) + chances(root, "tiny@2", features)) / 2
    torch.testing.assert_close(taught(root, "r", features).probabilities, mean, rtol=0, atol=1e-6)
    table = pq.read_table(io.BytesIO(storage.get(storage.join(job.uri, TARGETS))))
    assert table.num_rows == features.manifest.splits["train"].utterances
    storage.put(storage.join(job.uri, TARGETS), b"changed")
    with pytest.raises(IntegrityError):
        taught(root, "r", features)


def test_a_distilled_version_names_its_teachers_and_a_resumed_run_ends_in_the_same_bits(
    root: str, features: FeatureSet
) -> None:
    store, given = Store.open(root), spec(features, "tiny@1", "tiny@2")
    quiet = Listening(lambda _: None)
    outcome = usecases.train(given, store, run_id="whole", hooks=quiet, model="student")
    assert [teacher.name for teacher in outcome.version.teachers] == ["tiny@1", "tiny@2"]
    assert "mean probabilities of tiny@1, tiny@2" in outcome.version.protocol
    assert outcome.result is not None
    assert outcome.result.seeds[0].history[-1].model_dump()["distillation_loss"] > 0

    def stop(event: Any) -> None:
        if event["kind"] == "epoch" and event["record"]["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        usecases.train(given, store, run_id="killed", hooks=Listening(stop), model="student", force=True)
    resumed = usecases.train(given, store, run_id="killed", hooks=quiet, model="student", force=True)
    assert resumed.result is not None
    one, two = (checkpoint.load_weights(result.seeds[0].checkpoint_uri) for result in (outcome.result, resumed.result))
    assert all(torch.equal(one[name], two[name]) for name in one)
    # A version of the same config is unchanged if it has the same teachers.
    again = usecases.train(given, store, run_id="again", hooks=quiet, model="student")
    assert (again.what, again.version.name) == ("Skipped", "student@2")
    other = spec(features, "tiny@1")
    assert usecases.train(other, store, run_id="other", hooks=quiet, model="student").what == "Registered"
    with pytest.raises(ConfigError, match="must be resumed with the config and features"):
        prepare(other, root=root, run_id="killed")


def test_teachers_change_what_is_learned(root: str, features: FeatureSet) -> None:
    found = []
    for weight in (0.5, 1.0):
        given = spec(features, "tiny@1", **{"loss.distillation": weight})
        result = usecases.train_run(given, Store.open(root), run_id=f"w{weight}", hooks=Listening(lambda _: None))
        found.append(checkpoint.load_weights(result.seeds[0].checkpoint_uri))
    assert any(not torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_python_names_teachers_and_their_loss_has_the_weight_1(root: str, features: FeatureSet) -> None:
    run = ada2i.train(features.uri, FIELDS, settings="demo", teachers=["tiny@1", "tiny@2"], root=root, progress=False)
    assert [teacher.name for teacher in run.result.teachers] == ["tiny@1", "tiny@2"]
    assert run.result.config.loss.distillation == 1.0


def test_a_teacher_with_other_encoders_reads_its_own_features(root: str, features: FeatureSet, tmp_path: Path) -> None:
    table = write_rows(tmp_path / "rows.parquet", features)
    narrow = [None if row is None else row[:5] for row in table["text_feat"].to_pylist()]
    table = table.set_column(table.column_names.index("text_feat"), "text_feat", [narrow])
    order = np.random.default_rng(0).permutation(table.num_rows)  # dialogues in another order
    pq.write_table(table.take(order), tmp_path / "narrow.parquet")
    other = resolve_features(str(tmp_path / "narrow.parquet"), root, dataset="narrow")
    info = other.info().model_copy(update={"labels": features.info().labels})
    registered(root, info, "reference", model__modalities=["text"])
    prepare(spec(features, "tiny@3"), root=root, run_id="r")
    rows, theirs = taught(root, "r", features).probabilities, chances(root, "tiny@3", other)
    ours, own = (open_split(each, "train", ("text",)) for each in (features, other))
    starts = dict(zip(np.array(own.dialogue_ids).tolist(), np.cumsum(own.lengths) - own.lengths, strict=True))
    at = 0
    for name, length in zip(np.array(ours.dialogue_ids).tolist(), ours.lengths.tolist(), strict=True):
        start = int(starts[name])
        torch.testing.assert_close(rows[at : at + length], theirs[start : start + length], rtol=0, atol=1e-6)
        at += length


def test_refuses(root: str, features: FeatureSet) -> None:
    def message(given: TrainSpec, kind: type[Exception] = ConfigError) -> str:
        with pytest.raises(kind) as caught:
            prepare(given, root=root, run_id="r")
        assert not storage.exists(storage.join(run_uri(root, "r"), "request.json"))
        return str(caught.value)

    assert "needs teachers, but there are none" in message(spec(features, **{"loss.distillation": 1.0}))
    assert "must learn from them" in message(spec(features, "tiny@1", **{"loss.distillation": 0.0}))
    assert "tiny@1 is named twice" in message(spec(features, "tiny@1", "tiny@1"))
    smaller = features.info().model_copy(update={"labels": features.info().labels[:3], "uri": "file:///gone"})
    registered(root, smaller, "reference")
    assert "tiny@3 has neutral, joy, sadness" in message(spec(features, "tiny@3"))


def test_refuses_a_teacher_that_can_read_nothing(root: str, features: FeatureSet) -> None:
    widths = {**features.info().widths, "text": 7}
    gone = features.info().model_copy(update={"widths": widths, "uri": "file:///gone", "fingerprint": "0" * 32})
    registered(root, gone, "reference")
    with pytest.raises(DataError, match="tiny@3 must be able to read"):
        prepare(spec(features, "tiny@3"), root=root, run_id="r")


# --- UMT: the encoders of unimodal teachers ---

UMT: dict[str, Any] = {"balance.method": "umt"}
OF_MODALITY: dict[Modality, str] = {
    "text": "corrected",
    "audio": "causal",
    "visual": "reference",
}  # the presets of three teachers


@pytest.fixture
def unimodal(root: str) -> FeatureSet:
    """26 synthetic dialogues, and a version for each modality alone."""
    found = open_features(write_demo_corpus(root, dialogues=26))
    for modality, preset in OF_MODALITY.items():
        masked: dict[str, Any] = {"model__encoder__attend_to_padding": False, "model__afw__average_padding": False}
        registered(
            root, found.info(), preset, model__modalities=[modality], **(masked if preset == "reference" else {})
        )
    return found


def test_encoders_learn_the_outputs_of_unimodal_teachers(root: str, unimodal: FeatureSet) -> None:
    given = spec(unimodal, "tiny@3", "tiny@1", "tiny@2", **UMT)  # in any order
    outcome = usecases.train(given, Store.open(root), run_id="r", hooks=Listening(lambda _: None), model="student")
    found = taught(root, "r", unimodal)
    train = open_split(unimodal, "train", tuple(OF_MODALITY))
    everything = list(range(len(train.lengths)))
    for place, modality in enumerate(OF_MODALITY):
        version = find(root, "tiny", place + 1)
        model = load_model(version_uri(root, version), version)
        batch = open_split(unimodal, "train", (modality,)).batch(everything, everything)
        with torch.no_grad():
            expected = encodings(model(batch), batch)[modality]
        torch.testing.assert_close(found.encodings[:, place], expected, rtol=0, atol=1e-5)
    assert outcome.result is not None
    assert outcome.result.config.loss.distillation == 0
    history = [record.model_dump()["umt_loss"] for record in outcome.result.seeds[0].history]
    assert history[-1] < history[0]
    assert "on labels and on the encoders' outputs of tiny@3, tiny@1, tiny@2" in outcome.version.protocol


def test_refuses_teachers_whose_encoders_cannot_be_learned(root: str, unimodal: FeatureSet) -> None:
    def message(given: TrainSpec) -> str:
        with pytest.raises(ConfigError) as caught:
            prepare(given, root=root, run_id="r")
        return str(caught.value)

    assert "needs a teacher for each modality, but has 0 teachers" in message(spec(unimodal, **UMT))
    two = message(spec(unimodal, "tiny@1", "tiny@2", **UMT))
    assert "for each modality, text, audio, visual, but has 2 teachers" in two
    assert "tiny@1 is named twice" in message(spec(unimodal, "tiny@1", "tiny@2", "tiny@1", **UMT))
    wider = message(spec(unimodal, "tiny@1", "tiny@2", "tiny@3", **UMT, **{"model.hidden_dim": 12}))
    assert "must have the run's `model.hidden_dim`, 12, but tiny@1 has 8" in wider
    none = message(spec(unimodal, "tiny@1", "tiny@2", "tiny@3", **UMT, **{"balance.weight": 0.0}))
    assert "`loss.distillation` is 0, and `balance.method=umt` is not in effect" in none
    registered(root, unimodal.info(), "paper", model__modalities=["text", "audio"])
    assert "tiny@4 is trained on text, audio" in message(spec(unimodal, "tiny@4", "tiny@2", "tiny@3", **UMT))


@pytest.mark.parametrize(
    ("change", "modality", "message"),
    [
        ({"text": 7}, "text", "tiny@1 was trained on vectors of other widths"),
        ({}, "audio", "tiny@1 and tiny@2 are both trained on audio"),
    ],
)
def test_refuses_teachers_that_do_not_fit_together(
    root: str, change: dict[Modality, int], modality: Modality, message: str
) -> None:
    features = open_features(write_demo_corpus(root, dialogues=26))
    other = features.info().model_copy(update={"widths": {**features.info().widths, **change}})
    registered(root, other, "corrected", model__modalities=[modality])
    registered(root, features.info(), "causal", model__modalities=["audio"])
    given = spec(features, "tiny@1", "tiny@2", **UMT).model_copy(update={"modalities": "ta"})
    with pytest.raises(ConfigError, match=message):
        prepare(given, root=root, run_id="r")


def test_stored_outputs_without_an_encoder_are_refused(root: str, unimodal: FeatureSet) -> None:
    uri = prepare(spec(unimodal, "tiny@1", "tiny@2", "tiny@3", **UMT), root=root, run_id="r").uri
    table = pq.read_table(io.BytesIO(storage.get(storage.join(uri, TARGETS)))).drop_columns(["encoding_audio"])
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    request = RunRequest.load(storage.join(uri, "request.json"))
    assert request.teaching is not None
    teaching = request.teaching.model_copy(update={"targets": put_folder_file(uri, TARGETS, buffer.getvalue())})
    train = open_split(unimodal, "train", request.config.model.modalities)
    with pytest.raises(DataError, match=r"encoding_audio of 8 numbers, .* for each of the 225 utterances"):
        teacher_outputs(uri, request.model_copy(update={"teaching": teaching}), train)


def test_some_modalities_learn_from_probabilities_and_encoders(root: str, unimodal: FeatureSet) -> None:
    given = spec(unimodal, "tiny@1", "tiny@2", **UMT, **{"loss.distillation": 0.5})
    given = given.model_copy(update={"modalities": "ta"})
    outcome = usecases.train(given, Store.open(root), run_id="r", hooks=Listening(lambda _: None), model="student")
    assert outcome.result is not None
    record = outcome.result.seeds[0].history[-1].model_dump()
    assert record["umt_loss"] > 0
    assert record["distillation_loss"] > 0
    assert "the mean probabilities and the encoders' outputs of tiny@1, tiny@2" in outcome.version.protocol


@pytest.mark.parametrize(
    ("field", "vary"),
    [
        ({"balance.method": "umt"}, ()),
        ({"loss.distillation": 1.0}, ()),
        ({}, ("balance.method=none,umt",)),
        ({}, ("loss.distillation=0,1",)),
    ],
)
def test_a_search_has_no_teachers(
    root: str, unimodal: FeatureSet, field: dict[str, Any], vary: tuple[str, ...]
) -> None:
    wanted = SearchSpec(spec=spec(unimodal, **field), vary=vary, options=search_options(trials=2))
    with pytest.raises(ConfigError, match="teacher"):
        prepare_search(wanted, root=root)
