"""Tables without splits: by dialogue, by time, or by groups of dialogues; every dialogue stays whole."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ada2i.data.manifest import FeatureSet, open_features, read_shard
from ada2i.errors import ConfigError, DataError, InputError
from ada2i.importers.splitting import checked_shares
from ada2i.importers.table import import_table
from tests.unit.data.tables import Columns, corpus, write, written


def unsplit(dialogues: int = 40, utterances: int = 3) -> Columns:
    columns = corpus([("train", utterances)] * dialogues)
    number = [int(name[1:]) for name in columns["dialogue_id"]]
    more: Columns = {
        "session": [n % 5 for n in number],
        "recorded_at": [f"2026-01-{1 + n % 28:02}T00:{n:02}:00Z" for n in number],
    }
    return {name: values for name, values in (columns | more).items() if name != "split"}


def splits_of(features: FeatureSet) -> dict[str, str]:
    table = pa.concat_tables([read_shard(features, entry) for entry in features.manifest.shards])
    found: dict[str, str] = {}
    for dialogue, split in zip(table["dialogue_id"].to_pylist(), table["split"].to_pylist(), strict=True):
        assert found.setdefault(str(dialogue), str(split)) == split
    return found


def imported(source: Path, root: Path, **options: Any) -> FeatureSet:
    return open_features(import_table(str(source), str(root), gate_share=0, **options))


def test_by_dialogue_the_order_of_rows_changes_nothing(tmp_path: Path) -> None:
    columns = unsplit()
    plain = imported(write(tmp_path / "mine.parquet", columns), tmp_path / "root", split_by="dialogue")
    assert {split: info.dialogues for split, info in plain.manifest.splits.items()} == {
        "train": 32,
        "dev": 4,
        "test": 4,
    }
    assert plain.manifest.split_rule == (
        "train/dev/test = 80/10/10 % of the dialogues (32/4/4), in the order of the SHA-256 of dataset and id"
    )
    assert plain.manifest.dev_rule is None
    order = np.random.default_rng(0).permutation(len(columns["label"]))
    mixed = {name: [values[row] for row in order] for name, values in columns.items()}
    assert imported(write(tmp_path / "b" / "mine.parquet", mixed), tmp_path / "root", split_by="dialogue") == plain
    other = imported(tmp_path / "mine.parquet", tmp_path / "root", split_by="dialogue", dataset="other")
    assert splits_of(other) != splits_of(plain)


def test_by_time_the_newest_dialogues_are_test(tmp_path: Path) -> None:
    columns = unsplit(20)
    columns["recorded_at"][0] = None  # another row of the dialogue has the time
    features = imported(write(tmp_path / "x.parquet", columns), tmp_path / "root", split_by="time", shares=(60, 20, 20))
    newest: dict[str, str] = defaultdict(str)
    for dialogue, time in zip(columns["dialogue_id"], columns["recorded_at"], strict=True):
        newest[dialogue] = max(newest[dialogue], time or "")
    ordered = sorted(newest, key=lambda name: newest[name])
    assert [splits_of(features)[name] for name in ordered] == ["train"] * 12 + ["dev"] * 4 + ["test"] * 4
    assert "from the oldest to the newest by `recorded_at`" in str(features.manifest.split_rule)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_groups_stay_in_one_split(tmp_path: Path, suffix: str) -> None:
    columns = unsplit()
    source = tmp_path / f"x{suffix}"
    frame = pd.DataFrame(columns)
    frame.to_csv(source, index=False) if suffix == ".csv" else frame.to_parquet(source)
    features = imported(source, tmp_path / "root", split_by="session", shares="60,20,20")
    sessions = dict(zip(columns["dialogue_id"], columns["session"], strict=True))
    held = defaultdict(set)
    for dialogue, split in splits_of(features).items():
        held[split].add(sessions[dialogue])
    assert sorted(map(len, held.values())) == [1, 1, 3]
    assert "(3/1/1)" in str(features.manifest.split_rule)
    assert "session" not in features.manifest.unused


def test_dialogues_with_a_common_speaker_stay_together(tmp_path: Path) -> None:
    columns = unsplit(12, 2) | {"speaker": [name for d in range(12) for name in (f"A{d // 2}", f"B{d}")]}
    found = splits_of(imported(write(tmp_path / "x.parquet", columns), tmp_path / "root", split_by="speaker"))
    assert all(found[f"d{d}"] == found[f"d{d + 1}"] for d in range(0, 12, 2))
    together = unsplit(12, 2) | {"speaker": ["A", "B"] * 12}
    with pytest.raises(DataError, match=r"enough groups of dialogues by `speaker` .* but holds 1,"):
        imported(write(tmp_path / "y.parquet", together), tmp_path / "root", split_by="speaker")


def test_without_a_share_dev_is_cut_from_train(tmp_path: Path) -> None:
    source = write(tmp_path / "x.parquet", unsplit(20))
    manifest = imported(source, tmp_path / "root", split_by="dialogue", shares="90,0,10").manifest
    assert manifest.dev_rule is not None
    assert {split: info.dialogues for split, info in manifest.splits.items()} == {"train": 16, "dev": 2, "test": 2}


@pytest.mark.parametrize("shares", ["80,10", "80,10,20", "a,b,c", "100,0,0", "0,50,50", "110,-20,10", (80, 20)])
def test_shares_that_are_none(shares: Any) -> None:
    with pytest.raises(ConfigError, match=r"`--shares` must be the percentages of train, dev and test, together 100"):
        checked_shares(shares)


def lacks(name: str, value: Any = None, rows: slice = slice(None)) -> Columns:
    columns = unsplit(6)
    columns[name] = list(columns[name])
    columns[name][rows] = [value] * len(columns[name][rows])
    return columns


@pytest.mark.parametrize(
    ("columns", "by", "message"),
    [
        (
            unsplit(6) | {"split": ["train"] * 18},
            "dialogue",
            r"must have no splits .*the column `split`\. Omit",
        ),
        (
            unsplit(2),
            "dialogue",
            r"must hold enough dialogues that train gets one, but holds 2, of which dev gets 1 and test 1\.",
        ),
        (unsplit(6), "scene", r"must have the column `scene`, but has only "),
        (lacks("session", rows=slice(4, 5)), "session", r"`session` .* must hold a value in every row, but row 4"),
        (lacks("recorded_at", rows=slice(3, 6)), "time", r"`recorded_at` .* each dialogue, but row 3 \(dialogue 'd1'"),
        (lacks("recorded_at", "soon"), "time", r"`recorded_at` of .* must hold times in ISO 8601"),
        ({n: v for n, v in unsplit(6).items() if n != "recorded_at"}, "time", r"must have the column `recorded_at`"),
    ],
)
def test_tables_that_cannot_be_split(tmp_path: Path, columns: Columns, by: str, message: str) -> None:
    source = write(tmp_path / "x.parquet", columns)
    with pytest.raises(InputError, match=message):
        imported(source, tmp_path / "root", split_by=by)
    assert written(tmp_path / "root") == []


def test_a_column_of_splits_without_values_counts_as_none(tmp_path: Path) -> None:
    plain = imported(write(tmp_path / "x.parquet", unsplit()), tmp_path / "root", split_by="dialogue")
    empty = write(tmp_path / "b" / "x.parquet", unsplit() | {"split": [None] * 120})
    assert imported(empty, tmp_path / "root", split_by="dialogue") == plain


def test_splits_of_file_names(tmp_path: Path) -> None:
    plain = imported(write(tmp_path / "mine.parquet", unsplit()), tmp_path / "root", split_by="dialogue")
    one = write(tmp_path / "mine" / "data" / "train-00000-of-00001.parquet", unsplit())
    assert imported(one.parents[1], tmp_path / "root", split_by="dialogue").uri == plain.uri
    write(one.parent / "test-00000-of-00001.parquet", unsplit(2) | {"dialogue_id": ["x"] * 3 + ["y"] * 3})
    with pytest.raises(DataError, match=r"has them in the names of its files: test, train\. Omit `--split-by`"):
        imported(one.parents[1], tmp_path / "root", split_by="dialogue")


def test_a_set_keeps_its_splits(tmp_path: Path) -> None:
    features = imported(write(tmp_path / "x.parquet", unsplit()), tmp_path / "root", split_by="dialogue")
    with pytest.raises(DataError, match=r"must have no splits if `--split-by` makes them"):
        imported(Path(features.uri.removeprefix("file://")), tmp_path / "root", split_by="dialogue")
    again = imported(Path(features.uri.removeprefix("file://")), tmp_path / "root", dataset="again")
    assert again.manifest.split_rule == features.manifest.split_rule


def test_a_class_that_train_lacks_is_refused_unless_it_is_named(tmp_path: Path) -> None:
    source = write(tmp_path / "x.parquet", unsplit())
    test = next(d for d, s in splits_of(imported(source, tmp_path / "a", split_by="dialogue")).items() if s == "test")
    columns = unsplit()
    columns["label"] = ["rare" if d == test else "ab"[n % 2] for n, d in enumerate(columns["dialogue_id"])]
    source = write(tmp_path / "x.parquet", columns)
    with pytest.raises(DataError, match=r"only classes that train has after the split, .* of test holds 'rare'"):
        imported(source, tmp_path / "root", split_by="dialogue")
    named = imported(source, tmp_path / "root", split_by="dialogue", labels=("a", "b", "rare")).manifest
    assert named.splits["train"].class_counts[2] == 0 < named.splits["test"].class_counts[2]


def test_no_gate_is_cut_out_of_groups_that_stay_together(tmp_path: Path) -> None:
    source = write(tmp_path / "x.parquet", unsplit())
    of_groups = open_features(import_table(str(source), str(tmp_path / "root"), split_by="session"))
    assert "gate" not in of_groups.manifest.splits
    by_dialogue = open_features(import_table(str(source), str(tmp_path / "root"), split_by="dialogue"))
    assert "gate" in by_dialogue.manifest.splits


def test_shares_need_the_option_that_uses_them(tmp_path: Path) -> None:
    source = write(tmp_path / "x.parquet", corpus())
    with pytest.raises(ConfigError, match="`--shares` needs `--split-by`"):
        imported(source, tmp_path / "root", shares="50,25,25")
    grouped = write(tmp_path / "y.parquet", unsplit())
    with pytest.raises(ConfigError, match="dev would be cut out of train's groups"):
        imported(grouped, tmp_path / "root", split_by="session", shares="80,0,20")
