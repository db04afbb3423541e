"""Each published layout, generated small, is read completely; others are refused."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ada2i.data.manifest import FeatureSet, open_features, read_shard
from ada2i.data.splits import DEV_RULE
from ada2i.errors import DataError
from ada2i.importers.datasets import dataset
from ada2i.importers.published import import_pickle
from tests.unit.data.tables import written

Part = dict[Any, Any]

IDS = [f"Ses0{session}F_impro0{number}" for session in range(1, 6) for number in (1, 2)]
TRAIN, TEST = IDS[:8], IDS[8:]
LENGTHS = {name: 3 + place % 3 for place, name in enumerate(IDS)}


def vectors(width: int, seed: int = 0, lengths: dict[Any, int] = LENGTHS) -> Part:
    random = np.random.RandomState(seed + width)
    return {d: [random.standard_normal(width).astype(np.float32) for _ in range(n)] for d, n in lengths.items()}


def labels(classes: int, lengths: dict[Any, int] = LENGTHS) -> Part:
    return {d: [(place + u * 5) % classes for u in range(n)] for place, (d, n) in enumerate(lengths.items())}


def of_each(value: Callable[[Any, int], Any], lengths: dict[Any, int] = LENGTHS) -> Part:
    return {d: [value(d, u) for u in range(n)] for d, n in lengths.items()}


SPEAKERS = of_each(lambda _, u: "MF"[u % 2])
SENTENCES = of_each(lambda d, u: f"Don\x92t go, {d} {u}" if u == 1 else f"It is {u}.")
UTTERANCES = of_each(lambda d, u: f"{d}_F{u:03}")


def ada2i() -> dict[str, Any]:
    return {
        "trainVid": TRAIN,
        "testVid": TEST,
        "speaker": SPEAKERS,
        "label": labels(6),
        "text": vectors(8),
        "audio": vectors(5),
        "visual": {d: np.stack(rows) for d, rows in vectors(6).items()},
        "sentence": SENTENCES,
    }


def mmgcn() -> tuple[Any, ...]:
    parts = (UTTERANCES, SPEAKERS, labels(6), vectors(8), vectors(5), vectors(6), SENTENCES)
    return (*parts, set(TRAIN), set(TEST))


def saved(folder: Path, value: object, protocol: int = 2) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "features.pkl").write_bytes(pickle.dumps(value, protocol=protocol))
    return str(folder / "features.pkl")


def imported(tmp_path: Path, value: object, name: str = "iemocap", **options: Any) -> FeatureSet:
    return open_features(import_pickle(saved(tmp_path, value), str(tmp_path / "root"), dataset=name, **options))


def rows_of(features: FeatureSet) -> dict[tuple[str, int], dict[str, Any]]:
    table = pa.concat_tables([read_shard(features, entry) for entry in features.manifest.shards])
    return {(row["dialogue_id"], row["utterance_index"]): row for row in table.to_pylist()}


def refused(tmp_path: Path, value: object, message: str, name: str = "iemocap") -> None:
    source = saved(tmp_path, value)
    with pytest.raises(DataError, match=message) as caught:
        import_pickle(source, str(tmp_path / "root"), dataset=name)
    assert source in caught.value.message
    assert written(tmp_path / "root") == []


def dialogues(features: FeatureSet) -> dict[str, int]:
    return {split: info.dialogues for split, info in features.manifest.splits.items()}


# --- utterances without a label ---


@pytest.mark.parametrize("absent", [None, float("nan"), np.float32("nan")])
@pytest.mark.parametrize("layout", ["ada2i", "mmgcn"])
def test_a_label_of_none_is_context(tmp_path: Path, layout: str, absent: Any) -> None:
    partly = {d: [absent if u == 1 else label for u, label in enumerate(part)] for d, part in labels(6).items()}
    value: object = ada2i() | {"label": partly}
    if layout == "mmgcn":
        value = (*mmgcn()[:2], partly, *mmgcn()[3:])
    rows = rows_of(imported(tmp_path, value))
    assert {row["label"] for (_, index), row in rows.items() if index == 1} == {-1}
    assert {row["label"] for (_, index), row in rows.items() if index != 1} == set(range(6))


# --- IEMOCAP ---


@pytest.mark.parametrize("made", [ada2i, mmgcn])
def test_every_value_arrives(tmp_path: Path, made: Callable[[], Any]) -> None:
    features = imported(tmp_path, made())
    assert (features.manifest.dataset, features.manifest.labels) == ("iemocap", dataset("iemocap").labels)
    assert features.manifest.widths == {"text": 8, "audio": 5, "visual": 6}
    assert features.manifest.dev_rule == DEV_RULE
    assert dialogues(features) == {"dev": 1, "test": 2, "train": 7}
    found = rows_of(features)
    assert len(found) == sum(LENGTHS.values())
    for (name, index), row in found.items():
        assert (row["split"] == "test") == (name in TEST)
        assert (row["speaker"], row["label"]) == (SPEAKERS[name][index], labels(6)[name][index])
        assert row["text"] == SENTENCES[name][index].replace("\x92", "\u2019")
        for modality, width in features.manifest.widths.items():
            assert row[f"{modality}_feat"] == vectors(width)[name][index].tolist()


def test_both_layouts_are_one_set_but_for_ids(tmp_path: Path) -> None:
    named, tuple_ = rows_of(imported(tmp_path / "a", ada2i())), rows_of(imported(tmp_path / "b", mmgcn()))
    assert tuple_[TEST[0], 2].pop("utterance_id") == f"{TEST[0]}_F002"
    assert named[TEST[0], 2].pop("utterance_id") == f"{TEST[0]}_2"
    assert tuple_[TEST[0], 2] == named[TEST[0], 2]


def test_the_manifest_says_what_was_done(tmp_path: Path) -> None:
    value = ada2i()
    value["audio"] = {d: [np.zeros(5, np.float32), None, *rows[2:]] for d, rows in value["audio"].items()}
    manifest = imported(tmp_path, value).manifest
    assert manifest.source == (
        f"pickle {tmp_path}/features.pkl, the Ada2I layout; texts repaired: 10; missing vectors: audio 10; zero "
        "vectors: audio 10"
    )
    assert {info.encoder for info in manifest.modalities.values()} == {"as published"}


def test_layers_of_roberta_are_averaged(tmp_path: Path) -> None:
    layers = [vectors(4, seed) for seed in range(4)]
    cosmic = (SPEAKERS, labels(6), *layers, SENTENCES, TRAIN[:6], TEST, TRAIN[6:])
    features = imported(tmp_path, cosmic)
    assert features.manifest.dev_rule is None
    assert dialogues(features) == {"dev": 2, "test": 2, "train": 6}
    assert features.manifest.modalities["text"].encoder == "mean of 4 layers, as published"
    name = TRAIN[0]
    mean = np.mean([layer[name][1] for layer in layers], axis=0)
    assert rows_of(features)[name, 1]["text_feat"] == pytest.approx(mean.tolist(), abs=1e-6)


def test_layers_with_audio_and_visual(tmp_path: Path) -> None:
    layers = [vectors(4, seed) for seed in range(4)]
    long = (UTTERANCES, SPEAKERS, labels(6), *layers, vectors(5), vectors(6), SENTENCES, set(TRAIN), set(TEST))
    assert imported(tmp_path, long).manifest.widths == {"text": 4, "audio": 5, "visual": 6}


def test_parts_are_recognised_by_content(tmp_path: Path) -> None:
    shuffled = (SENTENCES, set(TRAIN), vectors(8), SPEAKERS, vectors(5), UTTERANCES, labels(6), set(TEST), vectors(6))
    assert imported(tmp_path / "a", shuffled).manifest.fingerprint == imported(tmp_path, mmgcn()).manifest.fingerprint


# --- MELD ---

MELD = {d: 2 + d % 3 for d in range(12)}


def meld(lengths: dict[int, int], train: int) -> tuple[Any, ...]:
    hot = of_each(lambda d, u: [int(place == (d + u) % 9) for place in range(9)], lengths)
    numbers = of_each(lambda _, u: u + 9, lengths)
    words = of_each(lambda d, u: f"What is {u} to {d}?", lengths)
    parts = (numbers, hot, labels(7, lengths), vectors(6, 0, lengths), vectors(3, 0, lengths), words)
    names = list(lengths)
    return (*parts, names[:train], names[train:], labels(3, lengths))


def test_meld_without_visual_and_with_two_kinds_of_labels(tmp_path: Path) -> None:
    features = imported(tmp_path, meld(MELD, 9), "meld")
    assert features.manifest.widths == {"text": 6, "audio": 3}
    row = rows_of(features)["4", 2]
    assert (row["speaker"], row["label"], row["utterance_id"]) == ("6", labels(7, MELD)[4][2], "4_11")
    assert features.manifest.dev_rule == DEV_RULE


def test_the_official_dev_of_meld_is_found_again(tmp_path: Path) -> None:
    # As many dialogues and utterances as published; the lengths themselves are made up.
    parts = {"train": (1038, 9989), "dev": (114, 1109), "test": (280, 2610)}
    sizes = [n // d + (place < n % d) for d, n in parts.values() for place in range(d)]
    features = imported(tmp_path, meld(dict(enumerate(sizes)), 1152), "meld")
    found = {split: (info.dialogues, info.utterances) for split, info in features.manifest.splits.items()}
    assert found == parts
    assert features.manifest.dev_rule is None
    assert "official dev recognised by its size" in features.manifest.source
    assert {row["split"] for (name, _), row in rows_of(features).items() if 1038 <= int(name) < 1152} == {"dev"}


# --- CMU-MOSEI ---


@pytest.mark.parametrize(("name", "classes"), [("cmu-mosei-2", 2), ("cmu-mosei-7", 7)])
@pytest.mark.parametrize("spelling", ["{}class", "{}-way", "sentiment_{}", None])
def test_the_task_of_mosei_is_chosen_by_name(tmp_path: Path, name: str, classes: int, spelling: str | None) -> None:
    tasks: Part = {2: labels(2), 7: labels(7)}
    if spelling is not None:
        tasks = {spelling.format(number): part for number, part in tasks.items()}
    value = ada2i() | {"label": tasks, "trainVid": TRAIN[:6], "valVid": TRAIN[6:]}
    features = imported(tmp_path, value, name)
    assert (features.manifest.labels, features.manifest.dev_rule) == (dataset(name).labels, None)
    assert dialogues(features) == {"dev": 2, "test": 2, "train": 6}
    assert rows_of(features)[TEST[0], 1]["label"] == labels(classes)[TEST[0]][1]


# --- what is refused ---


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in ada2i().items() if key != name}


def changed(name: str, dialogue: str, value: Any) -> dict[str, Any]:
    made = ada2i()
    return made | {name: {**made[name], dialogue: value}}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (7, "must hold a published layout.*; but holds a int"),
        ({}, "but holds a dict without `trainvid`, only empty"),
        (without("label"), "but holds a dict without `label`, only trainVid, testVid"),
        ({**ada2i(), "text": {}, "audio": {}, "visual": {}}, "the Ada2I layout without vectors"),
        (
            mmgcn()[:7],
            "a 7-part sequence of ids, speakers, labels, vectors.*: two or three splits and labels are expected",
        ),
        (mmgcn()[:2] + mmgcn()[3:], "two or three splits and labels are expected"),
        ((*mmgcn()[:7], set(TEST), set(TRAIN)), "train is expected before test, but has fewer dialogues"),
        (
            (*mmgcn()[:3], *map(vectors, range(2, 6)), *mmgcn()[6:]),
            r"visual are expected, but widths are \[2, 3, 4, 5\]",
        ),
        (ada2i() | {"testVid": TRAIN[:1]}, "its test repeats dialogue 'Ses01F_impro01' of another split"),
        (ada2i() | {"testVid": ["missing"]}, "its labels lack dialogue 'missing'|labels of"),
        (ada2i() | {"audio": 3}, "its audio are a int|fit none"),
        (changed("audio", TRAIN[0], []), "Part `audio` of .* must have 3 utterances, .*'Ses01F_impro01' has 0"),
        (changed("sentence", TRAIN[0], [1, 2, 3]), "Part `sentences` of .* must hold text, .* utterance 0 holds a int"),
        (changed("label", TRAIN[0], [[1, 2], 2, 3]), "Part `labels` of .* must hold numbers of classes"),
        (changed("label", TRAIN[0], [6, 2, 3]), "Column `label` of .* must hold integers 0..5, .* holds 6"),
        (changed("text", TRAIN[0], ["a", "b", "c"]), "Part `text` of .* must hold vectors of numbers"),
        (changed("text", TRAIN[0], [np.ones(7)] * 3), "Column `text` of .* must hold vectors of one width"),
        (changed("text", TRAIN[0], [np.full(8, np.inf)] * 3), "Column `text` of .* must hold finite float32 numbers"),
        (changed("text", TRAIN[0], [np.full(8, 1e300)] * 3), "Column `text` of .* must hold finite float32 numbers"),
    ],
)
def test_what_is_no_published_layout(tmp_path: Path, value: object, message: str) -> None:
    refused(tmp_path, value, message)


def test_a_task_that_is_not_there(tmp_path: Path) -> None:
    value = ada2i() | {"label": {"2class": labels(2)}}
    refused(tmp_path, value, "labels of '2class', none of which is the task with 7 classes", "cmu-mosei-7")


def test_a_hostile_pickle_writes_nothing(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    refused(tmp_path, ada2i() | {"text": Hostile()}, r"names `.*`, which no published feature file needs")
    assert not (tmp_path / "ran").exists()


def test_an_unknown_dataset(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="`dataset` must be one of iemocap"):
        import_pickle(saved(tmp_path, ada2i()), str(tmp_path / "root"), dataset="x")
