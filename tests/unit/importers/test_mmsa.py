"""MMSA's pickles, aligned and not: videos become dialogues, frames are averaged over their valid length."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ada2i.data.manifest import FeatureSet, open_features, read_shard
from ada2i.errors import DataError, InputError
from ada2i.importers.published import import_pickle
from tests.unit.data.tables import written

Split = dict[str, Any]
NAMES = ("Negative", "Neutral", "Positive")


def split(videos: int, start: int, *, aligned: bool, frames: int = 6) -> Split:
    """A split as published: clips out of order, with a gap; padding after the valid frames holds zeros."""
    random = np.random.default_rng(start)
    ids = [f"v_{video}$_${clip}" for video in range(start, start + videos) for clip in (7, 0, 2)]
    number = len(ids)
    lengths = random.integers(1, frames, number)
    scores = np.tile([-1.4, 0.0, 2.6], videos).astype(np.float32)

    def padded(width: int) -> "np.ndarray[Any, Any]":
        values = random.standard_normal((number, frames, width)).astype(np.float32)
        values[np.arange(frames) >= lengths[:, None]] = 0
        return values

    bert = np.zeros((number, 3, frames), np.float32)
    bert[:, 1] = np.arange(frames) < lengths[:, None]
    found: Split = {
        "id": ids,
        "raw_text": np.array([f"text of {name}" for name in ids]),
        "text": padded(8),
        "text_bert": bert,
        "audio": padded(5),
        "vision": padded(4),
        "annotations": np.array([NAMES[int(np.sign(score)) + 1] for score in scores]),
        "classification_labels": np.sign(scores) + 1,
        "regression_labels": scores,
    }
    if not aligned:
        found |= {"audio_lengths": lengths.tolist(), "vision_lengths": lengths}
    return found


def published(*, aligned: bool = False) -> dict[str, Split]:
    return {
        "train": split(4, 0, aligned=aligned),
        "valid": split(1, 4, aligned=aligned),
        "test": split(2, 5, aligned=aligned),
    }


def imported(tmp_path: Path, value: object, name: str = "mosi", protocol: int = 4, **options: Any) -> FeatureSet:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(value, protocol=protocol))
    return open_features(import_pickle(str(tmp_path / "x.pkl"), str(tmp_path / "root"), dataset=name, **options))


def rows_of(features: FeatureSet) -> dict[str, dict[str, Any]]:
    table = pa.concat_tables([read_shard(features, entry) for entry in features.manifest.shards])
    return {row["utterance_id"]: row for row in table.to_pylist()}


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("name", ["mosi", "mosei", "sims"])
def test_every_value_arrives(tmp_path: Path, name: str, aligned: bool) -> None:
    value = published(aligned=aligned)
    features = imported(tmp_path, value, name, protocol=2 if aligned else 5)
    manifest = features.manifest
    assert (manifest.dataset, manifest.labels) == (name, ("negative", "neutral", "positive"))
    assert {s: (i.dialogues, i.utterances) for s, i in manifest.splits.items()} == {
        "train": (4, 12),
        "dev": (1, 3),
        "test": (2, 6),
    }
    assert manifest.widths == {"text": 8, "audio": 5, "visual": 4}
    assert "MMSA's layout; videos renumbered for missing clips: 7; infinite numbers set to 0: 0;" in manifest.source
    assert "regression_labels" not in manifest.unused
    rows = rows_of(features)
    for ours, theirs in (("train", "train"), ("dev", "valid"), ("test", "test")):
        part = value[theirs]
        for row, identifier in enumerate(part["id"]):
            video, clip = identifier.split("$_$")
            found = rows[f"{video}_{clip}"]
            length = int(part["text_bert"][row, 1].sum())
            assert (found["split"], found["dialogue_id"], found["text"]) == (ours, video, f"text of {identifier}")
            assert found["utterance_index"] == {"0": 0, "2": 1, "7": 2}[clip]
            assert found["label"] == NAMES.index(part["annotations"][row])
            assert found["target"] == part["regression_labels"][row]
            for column, key in (("text_feat", "text"), ("audio_feat", "audio"), ("visual_feat", "vision")):
                assert found[column] == pytest.approx(part[key][row, :length].mean(axis=0), rel=1e-5, abs=1e-6)


def test_what_lies_beyond_the_length_does_not_count(tmp_path: Path) -> None:
    value = published()
    lengths = np.asarray(value["train"]["audio_lengths"])
    plain = rows_of(imported(tmp_path, value))
    value["train"]["audio"][np.arange(6) >= lengths[:, None]] = 99
    assert rows_of(imported(tmp_path, value)) == plain
    value = published()
    value["train"]["audio"] = np.array(
        [np.roll(a, 6 - n, axis=0) for a, n in zip(value["train"]["audio"], lengths, strict=True)]
    )
    value["train"]["audio_lengths"][0] = 0
    found = rows_of(imported(tmp_path, value))
    assert found["v_0_7"]["audio_feat"] is None
    assert found["v_0_0"]["audio_feat"] == pytest.approx(
        value["train"]["audio"][1, 6 - lengths[1] :].mean(axis=0), rel=1e-5, abs=1e-6
    )


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("cmu-mosi-2", ["negative", "non-negative", "non-negative"]),
        ("cmu-mosei-7", ["Weak Negative", "Neutral", "Strong Positive"]),
    ],
)
def test_other_classes_come_from_scores(tmp_path: Path, name: str, labels: list[str]) -> None:
    manifest = imported(tmp_path, published(), name, labels=None)
    rows = rows_of(manifest)
    held = [manifest.manifest.labels[rows[f"v_0_{clip}"]["label"]] for clip in (7, 0, 2)]
    assert held == labels


def test_without_annotations_scores_decide(tmp_path: Path) -> None:
    value = published()
    plain = imported(tmp_path, value)
    for part in value.values():
        del part["annotations"]
    assert imported(tmp_path, value).manifest.splits == plain.manifest.splits
    value["train"]["regression_labels"][0] = np.nan
    assert rows_of(imported(tmp_path, value))["v_0_7"]["label"] == -1


def test_infinite_numbers_are_set_to_zero_and_counted(tmp_path: Path) -> None:
    value = published()
    value["train"]["audio"][0, 0, :2] = -np.inf
    manifest = imported(tmp_path, value).manifest
    assert "infinite numbers set to 0: 2;" in manifest.source


def spoilt(name: str, value: Any, of: str = "train") -> dict[str, Split]:
    found = published()
    found[of][name] = value
    return found


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (spoilt("id", ["a$_$0"] * 12), r"must hold each id once in train, but repeats a\$_\$0\."),
        (spoilt("id", ["a$_$x"] * 12), r"must hold ids such as `video\$_\$3` in train, but holds 'a\$_\$x' in row 0"),
        (
            spoilt("annotations", ["Happy"] * 12),
            r"must hold negative, neutral, positive in `annotations` of train",
        ),
        (spoilt("audio", np.zeros((5, 6, 5))), r"must hold 12 values in `audio` of train, but holds 5\."),
        (spoilt("vision", np.zeros((12, 2, 2, 2))), r"hold a vector or frames .* in `vision` of train, .*\(2, 2, 2\)"),
        (
            spoilt("regression_labels", np.zeros((12, 2))),
            r"must hold one number for each utterance in `regression_labels` of train, but holds an array of .*12, 2",
        ),
        (spoilt("audio_lengths", np.ones((12, 2))), r"must hold one number for each utterance in `audio_lengths` of"),
        (spoilt("audio", [["x"]] * 12), r"must hold numbers in `audio` of train, but does not"),
        ({"train": published()["train"]}, r"must hold rows of `split` train and test, but no row has test"),
        ({**published(), "test": [1]}, r"must hold a dict for each split, but holds list for test"),
        (
            {k: {n: v for n, v in p.items() if n != "vision" or k != "test"} for k, p in published().items()},
            r"must hold `vision` in test, but holds NoneType there",
        ),
    ],
)
def test_pickles_that_do_not_fit(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        imported(tmp_path, value)
    assert written(tmp_path / "root") == []


def test_the_layout_may_be_required(tmp_path: Path) -> None:
    assert imported(tmp_path, published(), layout="mmsa").manifest.dataset == "mosi"
    with pytest.raises(DataError, match=r"must hold MMSA's layout, a dict of train, valid and test"):
        imported(tmp_path, {"trainVid": []}, layout="mmsa")
    with pytest.raises(InputError, match=r"`--layout` must be mmsa, but is 'other'"):
        imported(tmp_path, published(), layout="other")


def test_code_in_it_is_not_run(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return (open, (str(tmp_path / "written"), "w"))

    with pytest.raises(DataError, match=r"No code that it names was run"):
        imported(tmp_path, spoilt("raw_text", Harmful()))
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize("name", ["iemocap", "meld"])
def test_a_dataset_of_other_classes_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=rf"as the dataset that it is.*is to become {name}, which has no class"):
        imported(tmp_path, published(), name=name)
