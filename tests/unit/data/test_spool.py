import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ada2i.data import spool
from ada2i.errors import ResourceError
from tests.memory import peak


def rows(number: int) -> pa.Table:
    text = pa.array([None if n % 7 == 3 else f"text {n}" for n in range(number)], pa.string())
    return pa.table(
        {"number": pa.array(range(number)), "text": text, "vector": [[float(n)] * (n % 3) for n in range(number)]}
    )


def parts(table: pa.Table, size: int) -> Iterator[pa.Table]:
    return (table.slice(begin, size) for begin in range(0, table.num_rows, size))


@given(st.permutations(range(40)), st.integers(1, 41), st.integers(1, 500))
def test_rows_come_in_the_order_of_their_ranks(ranks: list[int], size: int, run: int) -> None:
    table = rows(len(ranks))
    with mock.patch.object(spool, "_RUN_BYTES", run), mock.patch.object(spool, "_MAPPED", 2):
        found = spool.ordered(parts(table, size), np.array(ranks, np.int32))
    assert found.equals(table.take(np.argsort(ranks)))


def test_parts_without_rows_change_nothing() -> None:
    table, ranks = rows(6), np.array([3, 1, 0, 5, 2, 4])
    given = [table.slice(0, 0), table.slice(0, 3), table.slice(3, 3), table.slice(0, 0)]  # ends after a full run
    with mock.patch.object(spool, "_RUN_BYTES", 1):
        assert spool.ordered(given, ranks).equals(table.take(np.argsort(ranks)))


def test_tables_of_a_spool_have_their_own_columns_and_stay_when_it_is_closed() -> None:
    one, other = rows(5), pa.table({"x": ["a"]})
    with spool.Spool() as stored:
        stored.add(parts(one, 2))
        stored.add([other])
        found = stored.tables()
    spool.release()
    assert [table.to_pylist() for table in found] == [one.to_pylist(), other.to_pylist()]


def test_pieces_are_all_rows_in_order() -> None:
    table = pa.concat_tables([rows(5), rows(3)])
    with mock.patch.object(spool, "PIECE", 2):
        found = list(spool.pieces(table))
    assert [part.num_rows for part in found] == [2, 2, 1, 2, 1]
    assert pa.concat_tables(found).equals(table)


def test_no_file_remains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = len(os.listdir("/proc/self/fd"))
    table = spool.stored([rows(10)])
    assert list(tmp_path.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == before + 1  # of the map
    del table
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: open("/dev/full", "wb"))  # noqa: SIM115
    with pytest.raises(ResourceError, match=r"^The temporary folder .* No space left on device\. Free space there"):
        spool.stored([rows(10)])


# --- an import ---

SETUP = """
from ada2i.data import shards, spool
from ada2i.importers.table import import_table
shards.SHARD_BYTES, shards._PIECE, spool._RUN_BYTES = 4 << 20, 1 << 16, 4 << 20
"""


def corpus(path: Path, number: int) -> Path:
    """Write a table with 10 utterances in each dialogue, in any order, 200 bytes of vectors in each row."""
    random = np.random.default_rng(0)
    at = random.permutation(number)
    values = random.standard_normal((number, 50), dtype=np.float32)
    split = np.array(["train", "train", "dev", "test"])[at // 10 % 4]
    ids = np.char.add("d", (at // 10).astype(str))
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), 50)
    columns = {"dialogue_id": ids, "utterance_index": at % 10, "label": at % 3, "split": split, "text_feat": vectors}
    pq.write_table(pa.table(columns), path, row_group_size=20_000)
    return path


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux to measure memory")
def test_the_memory_of_an_import_hardly_grows_with_its_rows(tmp_path: Path) -> None:
    found = []
    for number in (100_000, 400_000):
        source = corpus(tmp_path / f"{number}.parquet", number)
        found.append(peak(SETUP, "import_table(sys.argv[1], sys.argv[2])", str(source), str(tmp_path / str(number))))
    vectors = 300_000 * 200 >> 20
    assert found[1] - found[0] < 0.7 * vectors, found  # MiB; the vectors in memory alone would be all of it
