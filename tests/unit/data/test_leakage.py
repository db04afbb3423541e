"""Dialogues are known by their ids, and by what is said in them."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from ada2i.data.leakage import read_dialogues
from ada2i.data.manifest import FeatureSet, open_features
from ada2i.data.shards import write_features
from tests.unit.data.tables import shard_table

LENGTHS = [("train", "a", 3), ("train", "b", 2), ("dev", "c", 2), ("test", "a", 4)]


def written(root: Path, texts: list[str] | None = None, seed: int = 0) -> FeatureSet:
    table = shard_table(LENGTHS, seed=seed)
    if texts is not None:
        table = table.set_column(table.schema.get_field_index("text"), table.schema.field("text"), pa.array(texts))
    encoders = {"text": "x", "audio": "y"}
    uri = write_features(
        root.as_uri(),
        table,
        dataset="talks",
        synthetic=True,
        labels=("no", "yes"),
        encoders=encoders,  # type: ignore[arg-type]
        dev_rule=None,
        source="made up",
    )
    return open_features(uri)


def test_splits_that_are_not_there_hold_none(tmp_path: Path) -> None:
    assert read_dialogues(written(tmp_path), ["gate"]).contents == {}


def test_each_dialogue_has_a_digest_of_what_is_said(tmp_path: Path) -> None:
    said = [f"sentence {number}" for number in range(11)]
    features = written(tmp_path, said)
    found = read_dialogues(features, ["train", "dev"])
    assert set(found.contents) == {"a", "b", "c"}
    assert len(found.digests) == 3
    both = read_dialogues(features, ["train", "test"])
    assert len(both.contents["a"]) == 2  # one id, two dialogues
    # Other vectors of the same words are the same dialogues; another word makes another one.
    assert read_dialogues(written(tmp_path / "b", said, seed=1), ["train", "dev"]).digests == found.digests
    changed = read_dialogues(written(tmp_path / "c", ["other", *said[1:]]), ["train", "dev"])
    assert len(changed.digests & found.digests) == 2


def test_without_words_vectors_tell(tmp_path: Path) -> None:
    found = read_dialogues(written(tmp_path), ["train", "dev"]).digests
    assert found == read_dialogues(written(tmp_path), ["train", "dev"]).digests
    assert not found & read_dialogues(written(tmp_path / "b", seed=1), ["train", "dev"]).digests
    assert all(digest.startswith("vectors-") for digest in found)
    assert np.unique(list(found)).size == 3
