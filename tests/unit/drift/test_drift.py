"""Sums of predictions against their definition, and nights that look like the training set or do not."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ada2i import storage, usecases
from ada2i.data.manifest import open_features
from ada2i.drift import Drift, Reference, Statistic, Window, judge, keep, limits, reference_of, windows
from ada2i.drift.detect import statistics
from ada2i.drift.reference import home, split_sums
from ada2i.drift.windows import PAGE
from ada2i.errors import AccessError, ConfigError, DataError
from ada2i.importers.demo import demo_table, write_demo_corpus
from ada2i.inference.models import load_model
from ada2i.inference.predict import Dialogues, infer
from ada2i.inference.sums import BINS, EDGES, Columns, dialogue_sums
from ada2i.modalities import Modality
from ada2i.prediction.request import PredictSpec
from ada2i.records import DriftSummary
from ada2i.registry.aliases import move
from ada2i.registry.versions import Version, version_uri
from ada2i.store import DRIFT_SUMMARY, Store
from tests.unit.prediction.tiny import registered

NIGHT = 30  # dialogues


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Version, Reference]:
    """A version on 300 synthetic dialogues, and its reference."""
    root = tmp_path_factory.mktemp("drift").as_uri()
    features = open_features(write_demo_corpus(root, dialogues=300))
    version = registered(root, features.info())
    return root, version, reference_of(root, version)


def dialogues(lengths: tuple[int, ...], widths: Mapping[Modality, int]) -> Dialogues:
    random, rows = np.random.default_rng(0), sum(lengths)
    there = random.random(rows) < 0.7
    return Dialogues(
        features={m: random.standard_normal((rows, w)).astype(np.float32) for m, w in widths.items()},
        present={m: there if m == "audio" else np.ones(rows, np.bool_) for m in widths},
        speakers=np.zeros(rows, np.int64),
        lengths=np.array(lengths),
        padded=None,
    )


def test_sums_are_those_of_each_dialogue(made: tuple[str, Version, Reference]) -> None:
    root, version, _ = made
    model = load_model(version_uri(root, version), version)
    given = dialogues((2, 5, 1), version.features.widths)
    inference = infer(model, given, batch=64, device=torch.device("cpu"))
    sums = dialogue_sums(model, given, inference)
    columns = Columns.of(version.features.widths, len(version.features.labels), numbers=False)
    at = columns.places
    assert sums.shape == (3, columns.size)
    assert sums[:, at["utterances"]].ravel().tolist() == [2, 5, 1]
    rows = slice(2, 7)
    there = given.present["audio"][rows]
    assert sums[1, at["present.audio"]] == [there.sum()]
    vectors = model.standardise["audio"](
        torch.from_numpy(given.features["audio"]), torch.from_numpy(given.present["audio"])
    ).numpy()[rows]
    means = vectors.reshape(5, 8, 3).mean(axis=2)  # 24 columns in 8 groups
    np.testing.assert_allclose(sums[1, at["total.audio"]], means[there].sum(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(sums[1, at["squares.audio"]], (means[there] ** 2).sum(axis=0), rtol=1e-5)
    bins = sums[1, at["bins.audio"]].reshape(8, BINS)
    for group in range(8):
        wanted = np.bincount(np.searchsorted(EDGES, means[there, group]), minlength=BINS)
        assert bins[group].tolist() == wanted.tolist()
    assert sums[1, at["predicted"]].tolist() == np.bincount(inference.labels[rows], minlength=6).tolist()
    np.testing.assert_allclose(sums[1, at["confidence"]], inference.probabilities[rows].max(axis=1).sum(), rtol=1e-6)


def test_the_stability_index_by_hand() -> None:
    columns = Columns({}, 2)
    expected, window = np.zeros(columns.size), np.zeros(columns.size)
    expected[0], window[0] = 99, 9
    expected[columns.places["predicted"]], window[columns.places["predicted"]] = (49, 49), (8, 1)
    names, ((index, *_),) = statistics(columns, expected, window[None])
    assert names[0] == "psi.label"
    assert index == pytest.approx((0.85 - 0.5) * np.log(0.85 / 0.5) + (0.15 - 0.5) * np.log(0.15 / 0.5))


def nights(made: tuple[str, Version, Reference], change: Any = None, number: int = 200) -> list[bool]:
    """Judge windows of test dialogues, which the reference has not seen."""
    root, version, reference = made
    sums = split_sums(root, version, "test", *([change] if change else []))
    random = np.random.default_rng(1)
    drawn = (sums[random.choice(len(sums), NIGHT, replace=False)].sum(axis=0) for _ in range(number))
    bounds = limits(reference, NIGHT)
    return [judge(reference, night, NIGHT, bounds).drifted for night in drawn]


def test_nights_like_the_training_set_are_no_drift(made: tuple[str, Version, Reference]) -> None:
    assert sum(nights(made)) <= 2


@pytest.mark.parametrize("modality", ["audio", "visual"])
def test_another_gain_is_drift(made: tuple[str, Version, Reference], modality: Any) -> None:
    def louder(given: Dialogues) -> Dialogues:
        return replace(given, features={**given.features, modality: given.features[modality] * np.float32(3.0)})

    assert all(nights(made, louder, 5))


def test_missing_sound_is_drift_and_named(made: tuple[str, Version, Reference]) -> None:
    root, version, reference = made

    def silent(given: Dialogues) -> Dialogues:
        gone = np.zeros_like(given.present["audio"])
        features = {**given.features, "audio": np.zeros_like(given.features["audio"])}
        return replace(given, features=features, present={**given.present, "audio": gone})

    sums = split_sums(root, version, "test", silent)
    found = judge(reference, sums[:NIGHT].sum(axis=0), NIGHT)
    assert found.statistics[0].name == "missing.audio"
    assert found.statistics[0].exceeds


def test_ratios_are_those_of_the_farthest_statistic_of_a_kind() -> None:
    def one(name: str, value: float, limit: float) -> Statistic:
        return Statistic(name=name, value=value, usual=0.0, limit=limit)

    names = ("psi.label", "psi.confidence", "confidence", "missing.audio", "shift.audio.0", "psi.audio.0")
    found = Drift(dialogues=9, statistics=(*(one(name, 1.0, 4.0) for name in names), one("psi.text.7", 3.0, 2.0)))
    assert found.ratios == dict.fromkeys(("label", "confidence", "missing", "shift"), 0.25) | {"psi": 1.5}
    assert found.drifted


def test_other_numbers_of_a_regression_are_drift(tmp_path: Path) -> None:
    root = tmp_path.as_uri()
    features = open_features(write_demo_corpus(root, dialogues=100)).info()
    version = registered(root, features, task="regression", ablations__no_modulation=True)
    spec = PredictSpec(version="tiny", source=version.features.uri, split="test", local=True)
    place, manifest = usecases.predict(spec, Store.open(root), hooks=usecases.Hooks(), extraction_run="x")
    parts = [pq.read_table(pa.BufferReader(storage.get(storage.join(place, name)))) for name in manifest.files]
    reference = reference_of(root, version)
    at, sums = reference.columns.places, np.array(manifest.sums)
    values = pa.concat_tables(parts)["value"].to_numpy()
    assert sums[at["value"]] == pytest.approx([values.sum()], rel=1e-5)
    found = {one.name: one for one in judge(reference, sums, manifest.dialogues).statistics}
    dev = reference.dev.sum(axis=0)
    assert found["value"].value == pytest.approx(abs(values.mean() - dev[at["value"]][0] / dev[0]), abs=1e-5)
    assert not found["value"].exceeds
    sums[at["value"]] += sums[0] * 2 * found["value"].limit
    shifted = judge(reference, sums, manifest.dialogues)
    assert (shifted.drifted, shifted.ratios["value"] > 1) == (True, True)


def test_a_single_missing_text_is_no_drift(made: tuple[str, Version, Reference]) -> None:
    root, version, reference = made
    sums = split_sums(root, version, "test")
    night = sums[:NIGHT].sum(axis=0)
    assert night[reference.columns.places["present.text"]] == night[0]  # text is never missing
    night[reference.columns.places["present.text"]] -= 1
    assert not judge(reference, night, NIGHT).drifted


def test_a_prediction_keeps_its_window(made: tuple[str, Version, Reference]) -> None:
    root, version, _ = made
    spec = PredictSpec(version="tiny", source=version.features.uri, split="dev", local=True)
    for _ in range(2):
        _, manifest = usecases.predict(spec, Store.open(root), hooks=usecases.Hooks(), extraction_run="x")
    _, ((window, result),) = usecases.drift("tiny", Store.open(root))
    assert (window.run_id, window.sums) == (manifest.run_id, manifest.sums)
    assert result.dialogues == manifest.dialogues
    assert not result.drifted
    place = storage.join(home(root, version), DRIFT_SUMMARY)
    assert DriftSummary.load(place).ratios == result.ratios


def test_the_newest_window_of_a_champion_is_new_until_it_is_compared(tmp_path: Path) -> None:
    root, store = tmp_path.as_uri(), Store.open(str(tmp_path))
    version = registered(root, open_features(write_demo_corpus(root, dialogues=60)).info())
    spec = PredictSpec(version="tiny", source=version.features.uri, split="dev", local=True)
    _, manifest = usecases.predict(spec, store, hooks=usecases.Hooks(), extraction_run="x")
    assert usecases.new_windows(store) == []  # of no champion
    move(root, "tiny", "champion", 1, expected=None, by="test", reason="test")
    assert [window.run_id for window in usecases.new_windows(store)] == [manifest.run_id]
    usecases.drift("tiny", store)
    assert usecases.new_windows(store) == []
    live = Window.of_endpoint("tiny", 1, 9, np.array(manifest.sums)).model_copy(
        update={"created": "2999-01-01T00:00:00+00:00"}
    )
    keep(root, live)
    assert usecases.new_windows(store) == [live]
    storage.put(storage.join(home(root, version), DRIFT_SUMMARY), b"damaged")
    assert usecases.new_windows(store) == [live]
    # A damaged model leaves the others.
    damaged = tmp_path / "registry" / "broken" / "aliases" / "champion" / "1.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("damaged")
    assert usecases.new_windows(store) == [live]
    # The page of a single window's comparison is about all windows.
    _, ((window, _),) = usecases.drift("tiny", store, run_id=live.run_id)
    assert window == live
    page = storage.get(storage.join(home(root, version), PAGE)).decode()
    assert all(one.source in page for one in (live, manifest))


def test_the_newest_windows_of_endpoints_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path.as_uri()
    version = registered(root, open_features(write_demo_corpus(root, dialogues=20)).info())
    made = [Window.of_endpoint("tiny", 1, 5, np.ones(3)) for _ in range(30)]
    made = [one.model_copy(update={"run_id": f"live-{n:02}"}) for n, one in enumerate(made)]
    for one in (made[0].model_copy(update={"run_id": "0" * 32}), *made):
        keep(root, one)
    keep(root, made[-1])
    assert {one.run_id for one in windows(root, version)} == {"0" * 32, *(f"live-{n:02}" for n in range(6, 30))}

    def refuse(*_: str) -> None:
        raise AccessError("may not be deleted")

    monkeypatch.setattr(storage, "delete", refuse)
    keep(root, made[-1].model_copy(update={"run_id": "live-30"}))
    assert "live-30" in {one.run_id for one in windows(root, version)}
    assert "Old drift windows are not deleted: may not be deleted" in caplog.text


def test_a_window_with_negative_counts_is_refused(made: tuple[str, Version, Reference]) -> None:
    _, _, reference = made
    sums = reference.dev[:NIGHT].sum(axis=0)
    sums[reference.columns.places["predicted"]] *= -1
    with pytest.raises(DataError, match="must have as many utterances, counts from 0 and finite sums"):
        judge(reference, sums, NIGHT)


def altered(version: Version, reference: Reference, **changes: Any) -> bytes:
    """Return a reference file with some parts changed."""
    rows = [reference.train, *reference.dev]
    split = changes.pop("split", ["train"] + ["dev"] * len(reference.dev))
    facts = {"weights": version.files["weights.safetensors"].sha256} | changes
    sums = facts.pop("sums", None) or pa.array([row.tolist() for row in rows], pa.list_(pa.float64(), len(rows[0])))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"split": split, "sums": sums}).replace_schema_metadata(facts), sink)
    return sink.getvalue().to_pybytes()


def test_a_damaged_or_foreign_reference_is_refused_by_name(
    made: tuple[str, Version, Reference], tmp_path: Path
) -> None:
    _, version, reference = made
    root, number = tmp_path.as_uri(), len(reference.dev) + 1
    registered(root, version.features)  # with the same weights
    uri = storage.join(home(root, version), "reference.parquet")
    storage.put(uri, altered(version, reference))
    assert np.array_equal(reference_of(root, version).dev, reference.dev)
    size = len(reference.train)
    kind = pa.list_(pa.float64(), size)
    for data in (
        b"nothing",
        altered(version, reference, weights="0" * 64),
        altered(version, reference, split=["dev"] * number),
        altered(version, reference, sums=pa.array([1.0] * number)),
        altered(version, reference, sums=pa.array([None] * number, kind)),
        altered(version, reference, sums=pa.array([[-1.0] * size] * number, kind)),
        altered(version, reference, sums=pa.array([[1e300] * size] * number, kind)),
        altered(version, reference, sums=pa.array([[float("nan")] * size] * number, kind)),
    ):
        storage.put(uri, data)
        with pytest.raises(DataError, match=r"reference\.parquet must be the reference of tiny@1.* Delete it"):
            reference_of(root, version)


def test_a_damaged_or_foreign_window_is_left_out(
    made: tuple[str, Version, Reference], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, version, reference = made
    root = tmp_path.as_uri()
    folder = storage.join(home(root, version), "windows")
    good = Window(
        model="tiny",
        version=1,
        run_id="good",
        created="2026-01-01T00:00:00+00:00",
        source="demo",
        dialogues=9,
        sums=tuple(reference.train.tolist()),
    )
    storage.put(storage.join(folder, "good.json"), good.stored())
    storage.put(storage.join(folder, "broken.json"), b"{")
    storage.put(storage.join(folder, "renamed.json"), good.stored())
    storage.put(storage.join(folder, "other.json"), good.model_copy(update={"version": 2, "run_id": "other"}).stored())
    huge = good.to_json().replace(b'"dialogues": 9', b'"dialogues": 1000000000000000000000')
    storage.put(storage.join(folder, "huge.json"), huge)
    assert [window.run_id for window in windows(root, version)] == ["good"]
    assert [name in caplog.text for name in ("broken", "renamed", "other", "huge", "good.json")] == [True] * 4 + [False]


def test_a_window_with_other_sums_is_left_out(
    made: tuple[str, Version, Reference], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path.as_uri()
    version = registered(root, open_features(write_demo_corpus(root, dialogues=40)).info())
    spec = PredictSpec(version="tiny", source=version.features.uri, split="train", local=True)
    _, manifest = usecases.predict(spec, Store.open(root), hooks=usecases.Hooks(), extraction_run="x")
    other = manifest.model_copy(update={"run_id": "older", "sums": manifest.sums[1:]})
    keep(root, Window.of_prediction(other))
    _, ((window, _),) = usecases.drift("tiny", Store.open(root))
    assert window.run_id == manifest.run_id
    assert "The window older of tiny@1 is left out" in caplog.text
    with pytest.raises(DataError, match=r"must have \d+ sums, but has"):
        usecases.drift("tiny", Store.open(root), run_id="older")


@pytest.mark.parametrize("preset", ["corrected", "reference"])
def test_the_reference_predicts_as_a_prediction_does(tmp_path: Path, preset: str) -> None:
    root = tmp_path.as_uri()
    version = registered(root, open_features(write_demo_corpus(root, dialogues=60)).info(), preset)
    spec = PredictSpec(version="tiny", source=version.features.uri, split="dev", local=True)
    _, manifest = usecases.predict(spec, Store.open(root), hooks=usecases.Hooks(), extraction_run="x")
    sums = split_sums(root, version, "dev")
    assert sums.sum(axis=0).tolist() == list(manifest.sums)


def test_a_folder_has_no_windows(made: tuple[str, Version, Reference]) -> None:
    with pytest.raises(ConfigError, match="Name the version"):
        usecases.drift("./copy", Store.open(made[0]))


def test_too_few_dialogues_are_not_judged_and_not_kept(made: tuple[str, Version, Reference], tmp_path: Path) -> None:
    root, version, reference = made
    with pytest.raises(DataError, match="at least 5 dialogues"):
        judge(reference, reference.train, 4)
    few = demo_table().slice(0, 12)
    pq.write_table(few, tmp_path / "few.parquet")
    before = len(windows(root, version))
    spec = PredictSpec(version="tiny", source=str(tmp_path / "few.parquet"), local=True)
    _, manifest = usecases.predict(spec, Store.open(root), hooks=usecases.Hooks(), extraction_run="x")
    assert manifest.sums == ()
    assert len(windows(root, version)) == before


def test_a_vector_too_large_to_predict_from_is_refused(made: tuple[str, Version, Reference], tmp_path: Path) -> None:
    table = demo_table()
    vectors = table["text_feat"].to_pylist()
    vectors[0] = [3e38, -3e38] * 16
    place = table.schema.get_field_index("text_feat")
    pq.write_table(table.set_column(place, "text_feat", [vectors]), tmp_path / "large.parquet")
    spec = PredictSpec(version="tiny", source=str(tmp_path / "large.parquet"), local=True)
    with pytest.raises(DataError, match="small enough for the model"):
        usecases.predict(spec, Store.open(made[0]), hooks=usecases.Hooks(), extraction_run="x")
