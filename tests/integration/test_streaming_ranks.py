"""Ranks of one machine that stream a split share its decoded shards, and change nothing but rounding."""

import json
from pathlib import Path

import pytest

from ada2i.data import shards
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
