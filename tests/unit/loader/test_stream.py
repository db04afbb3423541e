"""A streamed split gives the same batches as one in memory, from a bounded number of private files."""

import gc
import os
import resource
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ada2i import storage
from ada2i.batch import DialogueBatch
from ada2i.data import manifest
from ada2i.data.manifest import FeatureSet
from ada2i.errors import IntegrityError, ResourceError
from ada2i.loader.split_data import SplitData, open_split
from ada2i.loader.stream import Stream
from tests.unit.data.sets import GIB_OF_A_ROW, MODALITIES, cache, write_set

__all__ = ["cache"]  # a fixture of all tests here

LENGTHS = [("train", f"t{d:02d}", 1 + d * 7 % 5) for d in range(30)]
WINDOW = 9 * GIB_OF_A_ROW


@pytest.fixture
def features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureSet:
    """A set whose train split has many shards."""
    found = write_set(tmp_path / "root", [*LENGTHS, ("test", "x", 2)], monkeypatch)
    assert len(found.shards("train")) > 20
    return found


@pytest.fixture
def held(features: FeatureSet) -> SplitData:
    return open_split(features, "train", MODALITIES)


@pytest.fixture
def streamed(features: FeatureSet) -> SplitData:
    split = open_split(features, "train", MODALITIES, shuffle_gib=WINDOW)
    assert isinstance(split.chunks, Stream)
    return split


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The shards that are read as a whole, by name."""
    get, opened = storage.get, Counter[str]()

    def watched(uri: str) -> bytes:
        opened[uri.rsplit("/", 1)[1]] += 1
        return get(uri)

    monkeypatch.setattr(storage, "get", watched)
    return opened


def assert_same(ours: DialogueBatch, other: DialogueBatch) -> None:
    assert all(torch.equal(ours.features[m], other.features[m]) for m in MODALITIES)
    assert all(torch.equal(ours.present[m], other.present[m]) for m in MODALITIES)
    assert torch.equal(ours.labels, other.labels)
    assert torch.equal(ours.speakers, other.speakers)
    assert ours.layout == other.layout
    assert (ours.global_utterances, ours.global_dialogues) == (other.global_utterances, other.global_dialogues)


def test_the_split_is_the_same(held: SplitData, streamed: SplitData) -> None:
    assert streamed.dialogue_ids.to_pylist() == held.dialogue_ids.to_pylist() == sorted(d for _, d, _ in LENGTHS)
    assert streamed.lengths.tolist() == held.lengths.tolist()
    assert streamed.class_counts.tolist() == held.class_counts.tolist()
    for modality in MODALITIES:
        for ours, other in zip(streamed.statistics(modality), held.statistics(modality), strict=True):
            assert ours.tobytes() == other.tobytes()


def test_batches_are_the_same_over_epochs_and_passes(held: SplitData, streamed: SplitData) -> None:
    for epoch in (1, 2, 3):
        for batch in streamed.epoch(seed=4, epoch=epoch, batch_dialogues=4).batches():
            assert_same(streamed.batch(batch[1:], batch), held.batch(batch[1:], batch))
        for batch in streamed.in_order(7).batches():
            assert_same(streamed.batch(batch, batch), held.batch(batch, batch))


def test_any_dialogue_can_be_requested(held: SplitData, streamed: SplitData, cache: Path) -> None:
    everything = range(len(LENGTHS))
    assert_same(streamed.batch(everything, everything), held.batch(everything, everything))
    assert local_files(cache) == []


def test_a_window_that_covers_the_split_shuffles_it_as_a_whole(features: FeatureSet, held: SplitData) -> None:
    covered = open_split(features, "train", MODALITIES, shuffle_gib=float(held.shards.sizes.sum()) / 2**30)
    ours, other = (list(split.epoch(seed=1, epoch=2, batch_dialogues=4).batches()) for split in (covered, held))
    assert ours == other
    streamed = open_split(features, "train", MODALITIES, shuffle_gib=WINDOW)
    assert list(streamed.epoch(seed=1, epoch=2, batch_dialogues=4).batches()) != other


def local_files(cache: Path) -> list[Path]:
    return [path for folder in cache.rglob("stream-*") for path in folder.iterdir() if path.name[0] != "."]


def settle(split: SplitData) -> None:
    """Wait until nothing is being decoded."""
    assert isinstance(split.chunks, Stream)
    while split.chunks._work is not None:
        time.sleep(0.001)


def test_two_windows_of_files_at_most_and_none_afterwards(streamed: SplitData, cache: Path) -> None:
    most = 0
    for batch in streamed.epoch(seed=1, epoch=1, batch_dialogues=2).batches():
        streamed.batch(batch, batch)
        settle(streamed)
        files = local_files(cache)
        most = max(most, len(files))
        shards = {int(path.name.split(".")[1]) for path in files}
        assert sum(int(streamed.shards.sizes[shard]) for shard in shards) <= 3 * WINDOW * 2**30  # a batch spans two
    assert 2 <= most < len(streamed.shards.sizes) / 2
    assert {path.name.split(".")[0] for path in local_files(cache)} == {"1-2-0"}  # where the next epoch begins
    del streamed


def test_its_folder_goes_with_the_split(features: FeatureSet, cache: Path) -> None:
    split = open_split(features, "train", MODALITIES, shuffle_gib=WINDOW)
    next(split.in_order(3).batches())
    settle(split)
    assert local_files(cache)
    del split
    gc.collect()
    assert list(cache.rglob("stream-*")) == []


def test_folders_of_the_dead_are_swept_and_those_of_the_living_are_not(
    features: FeatureSet, streamed: SplitData, cache: Path
) -> None:
    home = cache / f"ada2i-features-{os.getuid()}"
    dead = home / "stream-dead-train"
    dead.mkdir()
    (dead / "1-1-0.0.0").write_bytes(b"of a killed worker")
    half = home / ".partial-old"
    half.write_bytes(b"of a killed worker")
    os.utime(half, (0, 0))
    open_split(features, "test", MODALITIES)
    assert not dead.exists()
    assert not half.exists()
    assert len(list(home.glob("stream-*"))) == 1
    for batch in streamed.in_order(5).batches():
        streamed.batch(batch, batch)


def test_files_that_a_power_cut_has_emptied_are_made_again(features: FeatureSet, held: SplitData, cache: Path) -> None:
    def opened() -> SplitData:
        split = open_split(features, "train", MODALITIES, shuffle_gib=WINDOW)
        split.statistics(MODALITIES[0])
        return split

    opened()
    kept = [path for ending in ("index.arrow", "sums.npy") for path in cache.rglob(f"*.{ending}")]
    assert len(kept) > 1
    for path in kept:
        path.write_bytes(path.read_bytes()[: 100 * (path.suffix == ".npy")])
    again = opened()
    assert again.lengths.tolist() == held.lengths.tolist()
    assert all(path.stat().st_size > 100 for path in kept)


def test_opening_reads_no_shard_and_a_seek_only_its_own_windows(
    features: FeatureSet, read: Counter[str], cache: Path
) -> None:
    split = open_split(features, "train", MODALITIES, shuffle_gib=WINDOW)
    again = open_split(features, "train", MODALITIES, shuffle_gib=WINDOW)
    assert again.lengths.tolist() == split.lengths.tolist()
    assert not read
    epoch = split.epoch(seed=1, epoch=1, batch_dialogues=3)
    start = len(epoch) // 2
    batch = next(epoch.batches(start))
    split.batch(batch, batch)
    settle(split)
    first, last = next(epoch.order.batches(start)).windows
    wanted = [int(shard) for window in epoch.order.windows[first : last + 2] for shard in window]
    names = [entry.name for entry in features.shards("train")]
    assert read == Counter(names[shard] for shard in wanted)


def test_workers_of_a_machine_decode_each_shard_once(
    features: FeatureSet, held: SplitData, read: Counter[str], cache: Path
) -> None:
    both = threading.Barrier(2)
    seen: dict[int, list[list[int]]] = {0: [], 1: []}

    def wait() -> None:
        both.wait(60)

    def work(place: int) -> None:
        split = open_split(features, "train", MODALITIES, shuffle_gib=WINDOW, part=(place, 2), wait=wait, attempt=7)
        if place:
            time.sleep(0.2)  # one of them is behind
        for batch in split.epoch(seed=1, epoch=1, batch_dialogues=4).batches():
            assert_same(split.batch(batch[place::2], batch), held.batch(batch[place::2], batch))
            seen[place].append(batch)
        settle(split)
        wait()

    threads = [threading.Thread(target=work, args=(place,)) for place in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert seen[0] == seen[1] == list(held_batches(features))
    begun = open_split(features, "train", MODALITIES, shuffle_gib=WINDOW).epoch(seed=1, epoch=2, batch_dialogues=4)
    names = [entry.name for entry in features.shards("train")]
    assert read == Counter(names) + Counter(names[shard] for shard in begun.order.windows[0])
    gc.collect()
    assert list(cache.rglob("stream-7-*")) == []


def held_batches(features: FeatureSet) -> Iterator[list[int]]:
    split = open_split(features, "train", MODALITIES, shuffle_gib=WINDOW)
    return (batch.dialogues for batch in split.epoch(seed=1, epoch=1, batch_dialogues=4).order.batches())


def test_a_flipped_byte_is_refused_when_its_shard_comes(features: FeatureSet) -> None:
    split = open_split(features, "train", MODALITIES, shuffle_gib=WINDOW)
    name = features.shards("train")[11].name
    path = storage.local_path(storage.join(features.uri, name))
    assert path is not None
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    seen: list[int] = []

    def train() -> None:
        for batch in split.in_order(1).batches():
            split.batch(batch, batch)
            seen.extend(batch)

    with pytest.raises(IntegrityError, match=f"{name} must hold the .* bytes with SHA-256"):
        train()
    assert len(seen) < int(split.index.edges[12])


def test_lengths_that_were_read_before_the_digest_was_checked(
    features: FeatureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = manifest.read_plain
    monkeypatch.setattr("ada2i.loader.index.read_plain", lambda *given: real(*given).slice(1))
    split = open_split(features, "train", MODALITIES, shuffle_gib=WINDOW)
    with pytest.raises(IntegrityError, match="must hold the dialogues that were read from it at first, but holds"):
        split.batch([0], [0])


def test_a_disk_without_room(features: FeatureSet) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(ResourceError, match="must have room for decoded features, but"):
            open_split(features, "train", MODALITIES)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_speakers_are_numbered_as_they_appear(held: SplitData) -> None:
    batch = held.batch(range(len(LENGTHS)), range(len(LENGTHS)))
    # "A" speaks first in every dialogue; who has no name is one other speaker.
    wanted = np.concatenate([[int(u % 3 != 0) for u in range(length)] for _, _, length in sorted(LENGTHS)])
    assert batch.speakers.tolist() == wanted.tolist()


@pytest.mark.parametrize("nodes", [1, 2, 4])
def test_nodes_together_read_each_shard_once_per_epoch(
    features: FeatureSet, held: SplitData, read: Counter[str], nodes: int
) -> None:
    ranks = [node for node in range(nodes) for _ in range(2)]
    splits = [
        open_split(features, "train", MODALITIES, shuffle_gib=WINDOW, attempt=1, nodes=tuple(ranks), node=node)
        for node in range(nodes)
    ]
    expected = [list(held_order(splits[0], epoch)) for epoch in (1, 2)]
    read.clear()
    found: list[list[list[int]]] = []
    for epoch in (1, 2):
        passes = [split.epoch(seed=4, epoch=epoch, batch_dialogues=4).batches() for split in splits]
        found.append([])
        for batches in zip(*passes, strict=True):
            assert all(batch == batches[0] for batch in batches)
            found[-1].append(batches[0])
            shares = splits[0].shares(batches[0], len(ranks))
            assert all(split.shares(batches[0], len(ranks)) == shares for split in splits)
            assert sorted(d for own in shares for d in own) == sorted(batches[0])
            for rank, own in enumerate(shares):
                if own:
                    assert_same(splits[ranks[rank]].batch(own, batches[0]), held.batch(own, batches[0]))
    assert found == expected  # the order is the same for any number of nodes
    for split in splits:
        settle(split)
    names = [entry.name for entry in features.shards("train")]
    ahead = splits[0].epoch(seed=4, epoch=3, batch_dialogues=4).order.windows[0]  # decoded before it is needed
    assert read == Counter(names * 2 + [names[shard] for shard in ahead])


def held_order(split: SplitData, epoch: int) -> Iterator[list[int]]:
    """The global batches of an epoch, without decoding anything."""
    yield from (batch.dialogues for batch in split.epoch(seed=4, epoch=epoch, batch_dialogues=4).order.batches())
