"""Ranks of one machine that stream a split share its decoded shards, and change nothing but rounding."""

import json
from pathlib import Path

import pytest

from ada2i.audit.measures import measures
from ada2i.data import shards
from ada2i.data.manifest import open_features
from ada2i.importers.demo import write_demo_corpus
from tests.integration.test_ranks import NO_DROPOUT, PUBLISHED_RATE, TWENTY_STEPS, largest_gap, train


@pytest.fixture
def features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The demo corpus in small shards."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 20_000)
    return write_demo_corpus((tmp_path / "root").as_uri())


def test_streaming_ranks_share_files_and_agree(tmp_path: Path, features: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    overrides = {**TWENTY_STEPS, **NO_DROPOUT, **PUBLISHED_RATE, "training.shuffle_gib": 50_000 / 2**30}
    one, two = (train(tmp_path / str(n), features, n, overrides) for n in (1, 2))
    assert largest_gap(one, two) < 1e-5
    first, second = (json.loads((tmp_path / "2" / f"replica-{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert len(first) == 20
    assert list((tmp_path / "tmp").rglob("*.index.arrow"))  # it did stream
    assert not list((tmp_path / "tmp").rglob("stream-*"))  # and left no window behind


def test_nodes_read_their_own_shards_only_and_agree(
    tmp_path: Path, features: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    measures(open_features(features))  # statistics are stored, so nothing is read for them
    overrides = {**TWENTY_STEPS, **NO_DROPOUT, **PUBLISHED_RATE, "training.shuffle_gib": 110_000 / 2**30}
    one, two, four = (train(tmp_path / f"{n}", features, 4, overrides, nodes=n) for n in (1, 2, 4))
    assert largest_gap(one, two) < 1e-5
    assert largest_gap(one, four) < 1e-5
    train_shards = {entry.name for entry in open_features(features).shards("train")}
    for nodes in (2, 4):
        replicas, reads = (
            [json.loads((tmp_path / f"{nodes}" / f"{kind}-{rank}.json").read_text()) for rank in range(4)]
            for kind in ("replica", "reads")
        )
        assert all(replica == replicas[0] for replica in replicas)
        assert len(replicas[0]) == 20
        # Two epochs, the window after them, and the few shards that a node without a dialogue in a batch borrows from;
        # if each node read all, it would be two epochs for each of them.
        own = [name for names in reads for name in names if name in train_shards]
        assert set(own) == train_shards
        assert len(own) < 2 * nodes * len(train_shards)
