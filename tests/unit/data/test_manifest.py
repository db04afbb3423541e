import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ada2i import storage
from ada2i.audit.gate import gate
from ada2i.data import shards
from ada2i.data.manifest import FeatureSet, Manifest, open_features, read_shard
from ada2i.errors import DataError, IntegrityError
from tests.unit.data.tables import WIDTHS, shard_table, sort_rows

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
    expected = sort_rows(shard_table(DIALOGUES)).slice(3)
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


def changed(features: FeatureSet, change: Callable[[dict[str, Any]], object]) -> str:
    """Change the manifest as one who can write it would, and return the set's URI."""
    place = storage.join(features.uri, "manifest.json")
    content = Manifest.load(place).model_dump(mode="json")
    change(content)
    storage.put(place, json.dumps(content).encode())  # without a seal, as older ones
    return features.uri


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "a shard is listed twice": lambda m: m["shards"].append(m["shards"][0]),
    "shards do not hold the dialogues": lambda m: m["shards"].pop(),
    "shards do not hold": lambda m: m["splits"]["train"].update(utterances=99),
    "shards do not hold the": lambda m: m["shards"][0].update(split="other"),
    "do not count every class": lambda m: m["splits"]["dev"].update(class_counts=[1]),
    "at `shards.0.sha256`": lambda m: m["shards"][0].update(sha256="../stranger/x"),
    "at `shards.1.sha256`": lambda m: m["shards"][1].update(sha256="AB" * 32),
}


@pytest.mark.parametrize("found", CHANGES)
def test_a_manifest_that_contradicts_itself_is_refused(features: FeatureSet, found: str) -> None:
    with pytest.raises(DataError, match=found):
        open_features(changed(features, CHANGES[found]))


@pytest.mark.parametrize("label", [99, 2, -2])
def test_a_label_that_is_no_class_is_refused(features: FeatureSet, label: int) -> None:
    (entry,) = features.shards("train")
    table = read_shard(features, entry)
    place = table.schema.get_field_index("label")
    labels = pa.array([label, *table["label"].to_pylist()[1:]], pa.int32())
    data = shards._encode(table.set_column(place, table.schema.field(place), labels))
    storage.put(storage.join(features.uri, entry.name), data)

    def reseal(manifest: dict[str, Any]) -> None:
        manifest["shards"][-1].update(size=len(data), sha256=storage.digest(data))

    found = open_features(changed(features, reseal))
    with pytest.raises(DataError, match=r"must hold labels from 0 to 1, or -1, as its manifest\.json records"):
        read_shard(found, found.manifest.shards[-1])
    with pytest.raises(DataError, match="must hold labels from 0 to 1"):
        gate(found, modalities=tuple(WIDTHS), allow=(), leave_out_fitted=True)
