"""A feature set of several shards, and the folder where its shards are decoded; imported as fixtures."""

import tempfile
from pathlib import Path

import pytest

from ada2i.data import shards
from ada2i.data.manifest import FeatureSet, open_features
from ada2i.modalities import Modality
from tests.unit.data.tables import WIDTHS, shard_table

MODALITIES: tuple[Modality, ...] = ("text", "audio")
ROWS = 4  # of a shard: larger dialogues make larger ones
GIB_OF_A_ROW = 4 * sum(WIDTHS.values()) / 2**30


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep decoded shards in the test's own folder; return it."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path / "tmp"


def write_set(root: Path, lengths: list[tuple[str, str, int]], monkeypatch: pytest.MonkeyPatch) -> FeatureSet:
    """Write a set of dialogues given by split, id and number of utterances, in small shards."""
    monkeypatch.setattr(shards, "SHARD_BYTES", ROWS * 4 * sum(WIDTHS.values()))
    uri = shards.write_features(
        root.as_uri(),
        shard_table(lengths, seed=1),
        dataset="small",
        synthetic=True,
        labels=("a", "b"),
        encoders=dict.fromkeys(WIDTHS, "random"),
        dev_rule=None,
        source="test",
    )
    return open_features(uri)
