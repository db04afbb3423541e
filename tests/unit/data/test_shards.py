import hashlib
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ada2i import storage
from ada2i.data import shards
from ada2i.data.manifest import open_features, read_shard
from ada2i.errors import DataError
from tests.memory import peak
from tests.unit.data.tables import shard_table, sort_rows, written

LENGTHS = [("train", "b", 3), ("train", "a", 2), ("test", "b", 2), ("dev", "c", 1)]
ROW_BYTES = 4 * (3 + 2)

lengths = st.lists(
    st.tuples(st.sampled_from(["train", "dev", "test"]), st.text(max_size=3), st.integers(1, 5)),
    min_size=1,
    max_size=12,
    unique_by=lambda dialogue: dialogue[:2],
)


def write(root: Path, table: pa.Table, **changes: Any) -> str:
    options: dict[str, Any] = {
        "dataset": "toy",
        "synthetic": False,
        "labels": ("calm", "cross"),
        "encoders": {"text": "bert", "audio": "opensmile"},
        "dev_rule": None,
        "source": "a test",
    }
    return shards.write_features(str(root), table, **(options | changes))


def files(root: Path) -> dict[str, bytes]:
    return {name: (root / name).read_bytes() for name in written(root) if (root / name).is_file()}


@given(lengths, st.integers(1, 12))
def test_no_dialogue_and_no_split_spans_shards_and_none_is_too_large(dialogues: Any, fit: int) -> None:
    rows = sort_rows(shard_table(dialogues))
    keys = list(zip(rows["split"].to_pylist(), rows["dialogue_id"].to_pylist(), strict=True))
    groups = [(("dev", "test", "train").index(str(split)), len(list(found))) for (split, _), found in groupby(keys)]
    bounds = shards.cut_shards([size for _, size in groups], [split for split, _ in groups], fit)
    assert [0, *(end for _, end in bounds)] == [*(begin for begin, _ in bounds), rows.num_rows]
    for begin, end in bounds:
        assert len({split for split, _ in keys[begin:end]}) == 1
        assert end - begin <= fit or len(set(keys[begin:end])) == 1
    for begin, end in bounds[:-1]:
        split, _ = following = keys[end]
        assert keys[end - 1] != following
        assert keys[begin][0] != split or end - begin + keys.count(following) > fit


@given(lengths, st.randoms(use_true_random=False), st.integers(1, 7))
def test_order_and_chunks_of_rows_change_neither_fingerprint_nor_bytes(dialogues: Any, random: Any, chunk: int) -> None:
    table = shard_table(dialogues)
    order = list(range(table.num_rows))
    random.shuffle(order)
    moved = table.take(order)
    chunked = pa.concat_tables([moved.slice(start, chunk) for start in range(0, len(order), chunk)])
    one, other = sort_rows(table), sort_rows(chunked)
    assert shards.fingerprint(one) == shards.fingerprint(other)
    assert shards._encode(one) == shards._encode(other)


def test_the_fingerprint_is_that_of_the_raw_values() -> None:
    # Written out by hand, so that no change of library or of code moves it unseen.
    rows = pa.table(
        {
            "text": pa.array(["é", None, ""], pa.string()),
            "label": pa.array([1, 0, 2], pa.int32()),
            "text_feat": pa.array([[1.0, -2.0], None, [0.5, 0.0]], pa.list_(pa.float32(), 2)),
        }
    )
    parts = [
        b'{"dataset": "toy", "schema_version": 1}',
        *(b"text", b"\1\0\1", struct.pack("<3q", 2, 0, 0), "é".encode()),
        *(b"label", b"\1\1\1", struct.pack("<3q", 1, 0, 2)),
        *(b"text_feat", b"\1\0\1", struct.pack("<q", 2), struct.pack("<6f", 1, -2, 0, 0, 0.5, 0)),
    ]
    expected = hashlib.sha256(b"".join(struct.pack("<q", len(part)) + part for part in parts)).hexdigest()[:32]
    assert shards.fingerprint(rows, dataset="toy") == expected


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": "toy2"},
        {"labels": ("calm", "wild")},
        {"encoders": {"text": "bert", "audio": "wav2vec"}},
        {"dev_rule": "first"},
        {"synthetic": True},
    ],
)
def test_whatever_tells_sets_apart_is_in_the_fingerprint(tmp_path: Path, change: dict[str, Any]) -> None:
    table = shard_table(LENGTHS)
    assert Path(write(tmp_path, table)).name != Path(write(tmp_path, table, **change)).name


@pytest.mark.parametrize("column", ["speaker", "text", "utterance_id", "label", "text_feat", "audio_feat"])
def test_every_column_is_in_the_fingerprint(column: str) -> None:
    rows = sort_rows(shard_table(LENGTHS))
    other = sort_rows(shard_table(LENGTHS, seed=1))[column]
    if pa.types.is_string(other.type):
        other = pa.chunked_array([pa.array(["changed", *other.to_pylist()[1:]])])
    changed = rows.set_column(rows.schema.get_field_index(column), rows.schema.field(column), other)
    assert shards.fingerprint(rows) != shards.fingerprint(changed)


def test_all_rows_come_back_sorted_from_many_shards(tmp_path: Path) -> None:
    dialogues = [("train", f"t{number}", 1 + number % 4) for number in range(9)] + LENGTHS
    table = shard_table(dialogues)
    with mock.patch.object(shards, "SHARD_BYTES", 5 * ROW_BYTES):
        features = open_features(write(tmp_path, table))
    entries = features.manifest.shards
    assert [entry.name for entry in entries] == [f"part-{number:05d}.parquet" for number in range(len(entries))]
    assert len(features.shards("train")) > 3
    back = pa.concat_tables([read_shard(features, entry) for entry in entries])
    assert back.combine_chunks().equals(sort_rows(table).combine_chunks())


def test_the_manifest_counts_what_is_there(tmp_path: Path) -> None:
    table = shard_table(LENGTHS)
    manifest = open_features(write(tmp_path, table, labels=("calm", "cross", "never"), dev_rule="by hand")).manifest
    assert list(manifest.splits) == ["dev", "test", "train"]
    train = manifest.splits["train"]
    labels = np.array(table["label"].to_pylist()[:5])
    assert (train.dialogues, train.utterances) == (2, 5)
    assert train.class_counts == ((labels == 0).sum(), (labels == 1).sum(), 0)
    assert (manifest.dev_rule, manifest.source) == ("by hand", "a test")
    assert manifest.modalities["audio"].encoder == "opensmile"


def test_a_complete_set_is_not_written_again(tmp_path: Path) -> None:
    uri = write(tmp_path, shard_table(LENGTHS))
    with mock.patch.object(storage, "put") as put, mock.patch.object(storage, "put_if_absent") as put_if_absent:
        assert write(tmp_path, shard_table(LENGTHS), source="elsewhere") == uri
    put.assert_not_called()
    put_if_absent.assert_not_called()


@pytest.mark.parametrize("survivors", [0, 1, 2, 3])
def test_a_cut_short_set_is_invisible_and_completed_by_the_next_run(tmp_path: Path, survivors: int) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    write(whole, shard_table(LENGTHS))
    done = 0

    def put(uri: str, data: bytes) -> None:
        nonlocal done
        if done == survivors:
            raise KeyboardInterrupt
        done += 1
        real(uri, data)

    real = storage.put
    killed = mock.patch.object(storage, "put_if_absent", side_effect=KeyboardInterrupt)
    with mock.patch.object(storage, "put", put), killed, pytest.raises(KeyboardInterrupt):
        write(cut, shard_table(LENGTHS))
    assert len(files(cut)) == survivors
    assert not any(name.endswith("manifest.json") for name in files(cut))
    write(cut, shard_table(LENGTHS))
    assert files(cut) == files(whole)


def test_writers_at_once_leave_one_whole_set(tmp_path: Path) -> None:
    table = shard_table(LENGTHS)
    with ThreadPoolExecutor(4) as pool:
        uris = set(pool.map(lambda number: write(tmp_path, table, source=f"writer {number}"), range(8)))
    features = open_features(uris.pop())
    assert not uris
    assert sum(read_shard(features, entry).num_rows for entry in features.manifest.shards) == table.num_rows


def test_vectors_are_stored_plain_and_strings_by_dictionary(tmp_path: Path) -> None:
    features = open_features(write(tmp_path, shard_table(LENGTHS)))
    data = storage.get(storage.join(features.uri, features.shards("train")[0].name))
    group = pq.ParquetFile(pa.BufferReader(data)).metadata.row_group(0)
    by_name = {group.column(place).path_in_schema: group.column(place) for place in range(group.num_columns)}
    assert {column.compression for column in by_name.values()} == {"ZSTD"}
    assert not by_name["text_feat.list.element"].has_dictionary_page
    assert by_name["split"].has_dictionary_page


def test_counts_of_a_split_are_those_of_all_its_shards(tmp_path: Path) -> None:
    table = shard_table([("train", f"d{number}", 2) for number in range(4)] + [("test", "e", 1)])
    targets = pa.array([None, None, 2.5, None, -1.0, 0.5, None, None, 7.0], pa.float32())
    labels = pa.array([0, 1, -1, 1, 1, 1, 0, -1, 0], pa.int32())
    table = table.set_column(table.column_names.index("label"), table.schema.field("label"), labels)
    with mock.patch.object(shards, "SHARD_BYTES", 2 * ROW_BYTES):
        manifest = open_features(write(tmp_path / "root", table.append_column("target", targets))).manifest
    assert len(manifest.shards) == 5
    test, train = manifest.splits["test"], manifest.splits["train"]
    assert list(manifest.splits) == ["test", "train"]
    assert (train.dialogues, train.utterances, train.class_counts) == (4, 8, (2, 4))
    assert train.targets is not None
    assert (train.targets.utterances, train.targets.low, train.targets.high) == (3, -1.0, 2.5)
    assert test.targets is not None
    assert (test.utterances, test.class_counts, test.targets.high) == (1, (1, 0), 7.0)


@pytest.mark.parametrize("name", ["", "..", "../up", "CMU MOSI", "a/b", "-x"])
def test_a_dataset_name_that_is_no_plain_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"^`dataset` must be a name of a-z"):
        write(tmp_path / "root", shard_table(LENGTHS), dataset=name)
    assert written(tmp_path / "root") == []


SETUP = """
import numpy as np, pyarrow as pa
from ada2i.data import schema, shards

dialogues = int(sys.argv[1]) // 10
ids = pa.array([f"d{n}" for n in range(dialogues) for _ in range(10)])
split = pa.array([("train", "dev", "test")[n % 3] for n in range(dialogues) for _ in range(10)])
values = np.random.default_rng(0).standard_normal((len(ids), 48), dtype=np.float32)
columns = {"dialogue_id": ids, "utterance_index": pa.array(list(range(10)) * dialogues, pa.int32()),
    "utterance_id": ids, "speaker": ids, "text": ids, "label": pa.array([0] * len(ids), pa.int32()), "split": split,
    "text_feat": schema.pack_vectors(values, np.ones(len(ids), bool))}
table = pa.table(columns, schema=schema.shard_schema({"text": 48}))
del values
shards.SHARD_BYTES = 4 << 20
options = dict(synthetic=True, labels=("a",), encoders={"text": "e"}, dev_rule=None, source="s")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux to measure memory")
def test_writing_holds_no_copy_of_the_rows(tmp_path: Path) -> None:
    write = "shards.write_features(sys.argv[2], table, dataset='x', **options)"
    less, more = (peak(SETUP, write, str(rows), str(tmp_path / str(rows))) for rows in (100_000, 400_000))
    table = 300_000 * 248 >> 20  # MiB by which the second table is larger
    assert more - less < 0.8 * table, (less, more)  # a sorted copy alone would be all of it, and more
