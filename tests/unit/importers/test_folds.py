"""Folds are feature sets of the same dialogues: each dialogue is test once, and none is in two splits."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ada2i.data.manifest import FeatureSet, read_shard
from ada2i.errors import ConfigError, DataError
from ada2i.importers.resolve import resolve_folds
from ada2i.importers.table import import_table
from tests.unit.data.tables import Columns, corpus, write

LENGTHS = [*[("train", 2)] * 8, *[("dev", 2)] * 2, *[("test", 3)] * 3]


def folds_of(source: object, root: Path, folds: int = 0, leave_out: str = "") -> list[FeatureSet]:
    return resolve_folds(str(source), str(root), folds=folds, leave_out=leave_out)


def dialogues(features: FeatureSet) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for entry in features.manifest.shards:
        found[entry.split] |= set(map(str, read_shard(features, entry)["dialogue_id"].to_pylist()))
    return found


@pytest.mark.parametrize("kind", ["table", "unsplit", "set"])
def test_each_dialogue_is_tested_once(tmp_path: Path, kind: str) -> None:
    columns: Columns = corpus(LENGTHS)
    if kind == "unsplit":
        del columns["split"]
    source = str(write(tmp_path / "mine.parquet", columns))
    if kind == "set":
        source = import_table(source, str(tmp_path / "root"))
    sets = folds_of(source, tmp_path / "root", 4)
    assert sorted(name for features in sets for name in dialogues(features)["test"]) == sorted(
        f"d{d}" for d in range(13)
    )
    for features in sets:
        found = dialogues(features)
        assert found["train"] | found["dev"] | found["test"] == {f"d{d}" for d in range(13)}
        assert len(found["train"]) + len(found["dev"]) + len(found["test"]) == 13
        assert features.manifest.dataset == "mine"
        assert features.manifest.labels == ("0", "1")
        assert "of 4: dialogues of train, dev and test together, without gate" in str(features.manifest.split_rule)
    assert folds_of(source, tmp_path / "root", 4) == sets


def test_values_arrive_and_gate_is_left_out(tmp_path: Path) -> None:
    columns = corpus([*LENGTHS, ("gate", 2)])
    sets = folds_of(write(tmp_path / "mine.parquet", columns), tmp_path / "root", 3)
    rows = pa.concat_tables([read_shard(sets[0], entry) for entry in sets[0].manifest.shards]).to_pylist()
    back = {(row["dialogue_id"], row["utterance_index"]): row for row in rows}
    places = list(zip(columns["dialogue_id"], columns["utterance_index"], strict=True))
    assert len(back) == len(places) - 2
    for place, key in enumerate(places[:-2]):
        assert back[key]["text_feat"] == columns["text_feat"][place]
        assert back[key]["label"] == columns["label"][place]


def test_ids_that_repeat_between_splits_stay_apart(tmp_path: Path) -> None:
    columns = corpus(LENGTHS)
    columns["dialogue_id"] = [str(int(name[1:]) % 8) for name in columns["dialogue_id"]]
    found = [dialogues(features)["test"] for features in folds_of(write(tmp_path / "x.parquet", columns), tmp_path, 2)]
    assert sorted(found[0] | found[1]) == sorted(
        [*(f"train/{d}" for d in range(8)), "dev/0", "dev/1", "test/2", "test/3", "test/4"]
    )


def test_one_fold_per_group(tmp_path: Path) -> None:
    columns = corpus(LENGTHS)
    columns["session"] = [int(name[1:]) % 5 for name in columns["dialogue_id"]]
    sets = folds_of(write(tmp_path / "x.parquet", columns), tmp_path / "root", leave_out="session")
    held = [{int(name[1:]) % 5 for name in dialogues(features)["test"]} for features in sets]
    assert sorted(map(sorted, held)) == [[0], [1], [2], [3], [4]]
    assert "each fold tests the dialogues of one value of `session`" in str(sets[0].manifest.split_rule)


def test_speakers_of_a_set(tmp_path: Path) -> None:
    columns = corpus(LENGTHS)
    columns["speaker"] = [f"S{int(name[1:]) % 3}" for name in columns["dialogue_id"]]
    uri = import_table(str(write(tmp_path / "x.parquet", columns)), str(tmp_path / "root"))
    sets = folds_of(uri, tmp_path / "root", leave_out="speaker")
    assert len(sets) == 3
    assert all(len({int(name[1:]) % 3 for name in dialogues(features)["test"]}) == 1 for features in sets)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"folds": 1}, ConfigError, r"`--folds` must be at least 2, but is 1"),
        ({"folds": 14}, DataError, r"must hold at least 14 dialogues for as many folds, but holds 13"),
        ({"leave_out": "scene"}, DataError, r"must have the column `scene`"),
        ({"leave_out": "one"}, DataError, r"must hold at least 2 groups of dialogues by `one` .* but holds 1\."),
        ({"leave_out": "speaker"}, DataError, r"must have the column `speaker`"),
    ],
)
def test_folds_that_cannot_be_made(tmp_path: Path, options: dict[str, Any], error: type, message: str) -> None:
    columns = corpus(LENGTHS) | {"one": [1] * 29}
    with pytest.raises(error, match=message):
        folds_of(write(tmp_path / "x.parquet", columns), tmp_path / "root", **options)
    assert not (tmp_path / "root").exists()
