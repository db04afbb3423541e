"""Batches hold what the shards hold, from files that are mapped, not copied, and only those of the split."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ada2i import storage
from ada2i.data.manifest import FeatureSet
from ada2i.errors import DataError, IntegrityError
from ada2i.loader.chunks import MappedShards
from ada2i.loader.split_data import SplitData, open_split
from tests.unit.data.sets import MODALITIES, cache, write_set
from tests.unit.data.tables import WIDTHS, shard_table

__all__ = ["cache"]  # a fixture of all tests here

LENGTHS = [("train", "t0", 3), ("train", "t1", 1), ("train", "t2", 5), ("train", "t3", 2), ("test", "x0", 4)]
TABLE = shard_table([*LENGTHS, ("dev", "v0", 2)], seed=1)


@pytest.fixture
def features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureSet:
    """A set whose train split has several shards."""
    found = write_set(tmp_path / "root", [*LENGTHS, ("dev", "v0", 2)], monkeypatch)
    assert len(found.shards("train")) == 3
    return found


def rows_of(dialogue: str) -> list[dict[str, Any]]:
    rows = [row for row in TABLE.to_pylist() if row["dialogue_id"] == dialogue]
    return sorted(rows, key=lambda row: int(row["utterance_index"]))


def dialogue_index(split: SplitData, *names: str) -> list[int]:
    return [split.dialogue_ids.to_pylist().index(name) for name in names]


def test_knows_all_dialogues(features: FeatureSet) -> None:
    split = open_split(features, "train", MODALITIES)
    wanted = {name: length for kind, name, length in LENGTHS if kind == "train"}
    assert dict(zip(split.dialogue_ids.to_pylist(), split.lengths.tolist(), strict=True)) == wanted


@pytest.mark.parametrize("names", [("t2", "t0"), ("t1",), ("t0", "t1", "t2", "t3")])
def test_batches_hold_the_values_of_the_table(features: FeatureSet, names: tuple[str, ...]) -> None:
    split = open_split(features, "train", MODALITIES)
    own = dialogue_index(split, *names)
    batch = split.batch(own, own)
    rows = [row for name in names for row in rows_of(name)]
    assert batch.labels.tolist() == [row["label"] for row in rows]
    assert batch.layout.lengths == tuple(len(rows_of(name)) for name in names)
    for m, width in WIDTHS.items():
        vectors = [row[f"{m}_feat"] for row in rows]
        wanted = np.array([vector or [0.0] * width for vector in vectors], dtype=np.float32)
        assert np.array_equal(batch.features[m].numpy(), wanted)
        assert batch.present[m].tolist() == [vector is not None for vector in vectors]


def test_some_vectors_are_missing_in_this_table(features: FeatureSet) -> None:
    split = open_split(features, "train", MODALITIES)
    batch = split.batch(range(4), range(4))
    for m in MODALITIES:
        absent = ~batch.present[m]
        assert absent.any()
        assert not absent.all()
        assert not batch.features[m][absent].any()


def test_counts_are_those_of_the_global_batch(features: FeatureSet) -> None:
    split = open_split(features, "train", MODALITIES)
    own, of = dialogue_index(split, "t3"), dialogue_index(split, "t0", "t3", "t2")
    batch = split.batch(own, of)
    assert (batch.global_utterances, batch.global_dialogues, batch.counted) == (10, 3, True)
    assert (batch.layout.lengths, batch.layout.padded_length) == ((2,), 5)


def test_a_rank_without_dialogues_borrows_the_first(features: FeatureSet) -> None:
    split = open_split(features, "train", MODALITIES)
    of = dialogue_index(split, "t2", "t0")
    batch = split.batch([], of)
    assert not batch.counted
    assert batch.layout.lengths == (5,)
    assert (batch.global_utterances, batch.global_dialogues) == (8, 2)
    assert batch.labels.tolist() == [row["label"] for row in rows_of("t2")]


def mapped_ranges(path: Path) -> list[tuple[int, int]]:
    """Where a file lies in this process's memory, by the kernel's account."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    ranges = [line.split()[0].split("-") for line in lines if line.endswith(path.name)]
    return [(int(start, 16), int(end, 16)) for start, end in ranges]


def test_vectors_are_views_of_the_mapped_file(features: FeatureSet, cache: Path) -> None:
    split = open_split(features, "train", MODALITIES)
    files = sorted(cache.rglob("*.arrow"))
    assert isinstance(split.chunks, MappedShards)
    assert len(files) == len(split.chunks.shards) == 3
    places = [place for file in files for place in mapped_ranges(file)]
    for chunk in split.chunks.shards:
        for vectors in chunk.features.values():
            assert lies_in(vectors, places)
        assert lies_in(chunk.labels, places)


def lies_in(array: NDArray[Any], places: list[tuple[int, int]]) -> bool:
    start = array.ctypes.data
    return not array.flags.writeable and any(low <= start and start + array.nbytes <= high for low, high in places)


def test_a_batch_is_the_callers_own(features: FeatureSet) -> None:
    split = open_split(features, "train", MODALITIES)
    split.batch([0], [0]).features["text"].fill_(7.0)
    assert not torch.any(split.batch([0], [0]).features["text"] == 7.0)


def test_only_the_requested_modalities(features: FeatureSet) -> None:
    batch = open_split(features, "train", ("audio",)).batch([0], [0])
    assert set(batch.features) == set(batch.present) == {"audio"}


def flip(features: FeatureSet, split: str) -> str:
    """Flip one bit in the middle of a split's last shard; return its name."""
    name = features.shards(split)[-1].name
    path = storage.local_path(storage.join(features.uri, name))
    assert path is not None
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    return name


def test_a_flipped_byte_is_refused(features: FeatureSet, cache: Path) -> None:
    name = flip(features, "train")
    with pytest.raises(IntegrityError, match=f"{name} must hold the .* bytes with SHA-256"):
        open_split(features, "train", MODALITIES)
    assert len(list(cache.rglob("*.arrow"))) == 2  # those before it


def test_the_test_split_stays_closed(features: FeatureSet, monkeypatch: pytest.MonkeyPatch) -> None:
    get, opened = storage.get, []

    def watched(uri: str) -> bytes:
        opened.append(uri.rsplit("/", 1)[1])
        return get(uri)

    monkeypatch.setattr(storage, "get", watched)
    flip(features, "test")
    open_split(features, "train", MODALITIES)
    open_split(features, "dev", MODALITIES)
    assert sorted(opened) == sorted(entry.name for split in ("train", "dev") for entry in features.shards(split))


def test_an_unknown_split(features: FeatureSet) -> None:
    with pytest.raises(DataError, match="must have the split 'val', but has dev, test, train"):
        open_split(features, "val", MODALITIES)


def test_workers_decode_a_part_each_and_map_all(features: FeatureSet, cache: Path) -> None:
    decoded: list[int] = []

    def neighbour(place: int) -> Callable[[], None]:
        def wait() -> None:
            decoded.append(len(list(cache.rglob("*.arrow"))))
            if place == 0:
                open_split(features, "train", MODALITIES, part=(1, 2))

        return wait

    split = open_split(features, "train", MODALITIES, part=(0, 2), wait=neighbour(0))
    assert decoded == [2]  # two of three before the neighbour did its own
    assert isinstance(split.chunks, MappedShards)
    assert len(split.chunks.shards) == 3


def test_decoded_shards_are_used_again(features: FeatureSet, monkeypatch: pytest.MonkeyPatch) -> None:
    open_split(features, "train", MODALITIES)

    def refuse(uri: str) -> bytes:
        raise AssertionError(uri)

    monkeypatch.setattr(storage, "get", refuse)
    open_split(features, "train", MODALITIES)


@pytest.mark.parametrize("damage", ["flip", "delete", "cut"])
def test_a_shard_that_was_damaged_after_it_was_decoded_is_refused(features: FeatureSet, damage: str) -> None:
    open_split(features, "train", MODALITIES)
    shard = storage.join(features.uri, features.shards("train")[-1].name)
    whole = storage.get(shard)
    if damage == "flip":
        flip(features, "train")
    elif damage == "delete":
        storage.delete(shard)
    else:
        storage.put(shard, whole[:-1])
    for _ in range(2):
        with pytest.raises(DataError, match=r"must hold the .* bytes with SHA-256|must exist, because"):
            open_split(features, "train", MODALITIES)
    storage.put(shard, whole)
    assert len(open_split(features, "train", MODALITIES).lengths) == 4


def test_a_damaged_copy_of_a_set_is_refused(features: FeatureSet, tmp_path: Path) -> None:
    open_split(features, "train", MODALITIES)
    folder = storage.local_path(features.uri)
    assert folder is not None
    copy = FeatureSet(shutil.copytree(folder, tmp_path / "copy").as_uri(), features.manifest)
    assert len(open_split(copy, "train", MODALITIES).lengths) == 4
    flip(copy, "train")
    with pytest.raises(IntegrityError, match=r"must hold the .* bytes with SHA-256"):
        open_split(copy, "train", MODALITIES)
    assert len(open_split(features, "train", MODALITIES).lengths) == 4


def test_a_killed_decode_leaves_nothing_to_map(
    features: FeatureSet, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(self: Path, target: Path) -> None:
        raise KeyboardInterrupt("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", die)
        with pytest.raises(KeyboardInterrupt, match="killed"):
            open_split(features, "train", MODALITIES)
    assert list(cache.rglob("*.arrow")) == []
    assert len(open_split(features, "train", MODALITIES).lengths) == 4


@pytest.mark.parametrize("where", [-9, 2000, "cut"])
def test_a_damaged_decoded_shard_is_decoded_again(features: FeatureSet, cache: Path, where: int | str) -> None:
    open_split(features, "train", MODALITIES)
    decoded = list(cache.rglob("*.arrow"))
    assert len(decoded) == 3
    for path in decoded:
        data = bytearray(path.read_bytes())
        if isinstance(where, int):
            data[where % len(data)] ^= 1
        path.write_bytes(data if isinstance(where, int) else data[: len(data) // 2])
    split = open_split(features, "train", MODALITIES)
    (number,) = dialogue_index(split, "t2")
    expected = np.array([row["text_feat"] or [0.0] * WIDTHS["text"] for row in rows_of("t2")], np.float32)
    np.testing.assert_array_equal(split.batch([number], [number]).features["text"].numpy(), expected)


def test_a_decoded_shard_without_its_digest_is_decoded_again(features: FeatureSet, cache: Path) -> None:
    open_split(features, "train", MODALITIES)
    for path in cache.rglob("*.sha256"):
        path.unlink()
    open_split(features, "train", MODALITIES)
    assert len(list(cache.rglob("*.sha256"))) == 3
