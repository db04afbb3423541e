"""Manifests with very many shards: the time and memory to open them, and the same entries as in a small one."""

import hashlib
import pickle
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from ada2i.data.entries import ShardEntry, ShardList
from ada2i.data.manifest import FeatureSet, Manifest, ModalityInfo, SplitInfo, open_features
from ada2i.errors import DataError, IntegrityError

SHARDS = 327_680


def entries(number: int) -> list[ShardEntry]:
    return [
        ShardEntry.model_construct(
            name=f"part-{n:05d}.parquet",
            split=("train", "dev", "a},\n  {b")[n % 3],
            size=n,
            sha256=hashlib.sha256(str(n).encode()).hexdigest(),
            rows=n % 7,
            dialogues=1,
        )
        for n in range(number)
    ]


def written(folder: Path, found: list[ShardEntry], **changes: Any) -> str:
    """Write a manifest of some shards; return the folder's URI."""
    splits: dict[str, SplitInfo] = {}
    for split in sorted({entry.split for entry in found}):
        rows = [entry.rows for entry in found if entry.split == split]
        splits[split] = SplitInfo(dialogues=len(rows), utterances=sum(rows), class_counts=(0, 0))
    facts = {"dataset": "d", "synthetic": True, "fingerprint": "f", "labels": ("a", "b"), "dev_rule": None}
    info = {"text": ModalityInfo(width=4, encoder="e")}
    shards = ShardList.of(found)
    manifest = Manifest(**facts, modalities=info, splits=splits, source="s", shards=shards)
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_bytes(manifest.model_copy(update=changes).stored())
    return folder.as_uri()


@pytest.mark.slow
def test_a_manifest_of_ten_terabytes_opens_in_seconds(tmp_path: Path) -> None:
    uri = written(tmp_path / "set", entries(SHARDS))
    assert (tmp_path / "set" / "manifest.json").stat().st_size > 60 << 20
    begun = time.process_time()
    features = open_features(uri)
    seconds = time.process_time() - begun
    assert seconds < 6.0  # 1.2 s on an idle machine
    assert len(features.shards("dev")) == SHARDS // 3 + 1
    assert features.manifest.shards.columns.nbytes < 100 * SHARDS
    tracemalloc.start()
    open_features(uri)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (held < 40 << 20, peak < 110 << 20) == (True, True)  # the file itself has 63 MiB


@pytest.mark.parametrize("number", [3, 12_000])
def test_entries_are_those_that_were_written(tmp_path: Path, number: int) -> None:
    expected = entries(number)
    manifest = open_features(written(tmp_path / "set", expected)).manifest
    found = manifest.shards
    assert list(found) == expected
    assert found == tuple(expected)
    assert (found[0], found[-1], found[1:3]) == (expected[0], expected[-1], ShardList.of(expected[1:3]))
    assert list(found.of_split("dev")) == expected[1::3]
    assert found.numbers("size").tolist() == list(range(number))
    assert pickle.loads(pickle.dumps(manifest)) == manifest
    with pytest.raises(IndexError):
        found[number]


def test_a_large_manifest_is_checked_as_a_small_one(tmp_path: Path) -> None:
    found = entries(12_000)
    uri = written(tmp_path / "set", found)
    place = tmp_path / "set" / "manifest.json"
    sound = place.read_bytes()
    place.write_bytes(sound.replace(b'"size": 77,', b'"size": 78,'))
    with pytest.raises(IntegrityError, match="as its seal"):
        open_features(uri)
    unsealed = b"{" + sound[sound.index(b"\n", 5) :]
    for old, new in (
        (b'"size": 77,', b'"size": "x",'),
        (b'"name": "part-00077', b'"name": "../77'),
        (b'"rows": 0,', b""),
    ):
        place.write_bytes(unsealed.replace(old, new, 1))
        with pytest.raises(DataError, match="must hold a Manifest of schema version 1"):
            open_features(uri)
    with pytest.raises(ValueError, match="listed twice"):
        written(tmp_path / "twice", [*found, found[5].model_copy(update={"split": "train"})])
    with pytest.raises(DataError, match="do not hold the dialogues and utterances"):
        open_features(written(tmp_path / "less", found, shards=ShardList.of(found[:-1])))


def test_a_manifest_in_another_layout_opens_too(tmp_path: Path) -> None:
    found = entries(12_000)
    uri = written(tmp_path / "set", found)
    manifest = open_features(uri).manifest
    (tmp_path / "set" / "manifest.json").write_text(manifest.model_dump_json())
    assert open_features(uri) == FeatureSet(uri, manifest)
