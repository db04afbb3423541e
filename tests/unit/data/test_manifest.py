import json
from pathlib import Path

import pytest

from ada2i.data import shards
from ada2i.data.manifest import FeatureSet, open_features, read_shard
from ada2i.errors import DataError, IntegrityError
from tests.unit.data.tables import WIDTHS, shard_table

DIALOGUES = [("dev", "b", 1), ("test", "c", 2), ("train", "a", 2), ("train", "d", 3)]


@pytest.fixture
def features(tmp_path: Path) -> FeatureSet:
    uri = shards.write_features(
        str(tmp_path),
        shard_table(DIALOGUES),
        dataset="toy",
        synthetic=True,
        labels=("calm", "cross"),
        encoders={"text": "bert", "audio": "opensmile"},
        dev_rule=None,
        source="a test",
    )
    return open_features(uri)


def folder(features: FeatureSet) -> Path:
    return Path(features.uri.removeprefix("file://"))


def test_a_set_tells_what_a_model_must_know(features: FeatureSet) -> None:
    info = features.info()
    assert (info.uri, info.dataset, info.synthetic) == (features.uri, "toy", True)
    assert (info.labels, info.widths) == (("calm", "cross"), WIDTHS)
    assert features.uri.endswith(f"/features/toy/{info.fingerprint}")


def test_a_shard_reads_back_as_it_was_written(features: FeatureSet) -> None:
    (entry,) = features.shards("train")
    expected = shards.sort_rows(shard_table(DIALOGUES)).slice(3)
    assert read_shard(features, entry).equals(expected)
    assert (entry.rows, entry.dialogues) == (5, 2)


def test_an_unknown_split_is_refused(features: FeatureSet) -> None:
    with pytest.raises(DataError, match=r"must have the split 'holdout', but has dev, test, train\."):
        features.shards("holdout")


def test_a_folder_without_manifest_is_no_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"^{tmp_path.as_uri()} must be a feature set, .* there is no manifest.json"):
        open_features(str(tmp_path))


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b"[]", b'{"schema_version": 1}'])
def test_a_damaged_manifest_is_refused(features: FeatureSet, damage: bytes) -> None:
    (folder(features) / "manifest.json").write_bytes(damage)
    with pytest.raises(DataError, match=r"/manifest.json must hold a Manifest of schema version 1, but: "):
        open_features(features.uri)


def test_another_schema_version_is_refused(features: FeatureSet) -> None:
    path = folder(features) / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 2, "new": 0}))
    with pytest.raises(DataError, match=r"of schema version 1, but: Input should be 1 at `schema_version`"):
        open_features(features.uri)


def test_a_changed_shard_is_refused(features: FeatureSet) -> None:
    (entry,) = features.shards("dev")
    path = folder(features) / entry.name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        IntegrityError, match=rf"/{entry.name} must hold the {entry.size} bytes .* delete {features.uri}"
    ):
        read_shard(features, entry)


def test_a_lost_shard_is_named(features: FeatureSet) -> None:
    (entry,) = features.shards("dev")
    (folder(features) / entry.name).unlink()
    with pytest.raises(DataError, match=rf"/{entry.name} must exist, .* delete {features.uri} and import"):
        read_shard(features, entry)


def test_a_shard_with_other_columns_is_refused(features: FeatureSet) -> None:
    (entry,) = features.shards("dev")
    text = features.manifest.modalities["text"].model_copy(update={"width": 9})
    modalities = features.manifest.modalities | {"text": text}
    other = FeatureSet(features.uri, features.manifest.model_copy(update={"modalities": modalities}))
    with pytest.raises(DataError, match=rf"/{entry.name} must hold the columns .*\[9\].*, but holds .*\[3\]"):
        read_shard(other, entry)


def test_a_shard_with_other_rows_is_refused(features: FeatureSet) -> None:
    (entry,) = features.shards("dev")
    with pytest.raises(
        DataError, match=rf"/{entry.name} must hold 8 rows, as its manifest.json records, but holds 1\."
    ):
        read_shard(features, entry.model_copy(update={"rows": 8}))
