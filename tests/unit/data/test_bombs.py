"""Files that are far larger in memory than on disk are refused before they are read."""

import io
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ada2i.data import schema
from ada2i.errors import DataError
from tests.unit.data.tables import corpus


def encoded(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def repeated_text(rows: int = 3000) -> pa.Table:
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * 2**20]))
    return pa.table({"text": texts})


def wide_vectors(rows: int = 9, width: int = 2**24) -> pa.Table:
    values: Any = pa.repeat(pa.scalar(0.0, pa.float32()), rows * width)
    return pa.table({"text_feat": pa.FixedSizeListArray.from_arrays(values, width)})


def many_rows() -> pa.Table:
    return pa.table({"utterance_index": pa.repeat(pa.scalar(0), 80_000_000)})


@pytest.mark.parametrize("table", [repeated_text, wide_vectors, many_rows])
def test_a_bomb_is_refused(table: Any) -> None:
    data = encoded(table())
    assert len(data) < 2**20
    file = schema.open_parquet(data, "s3://b/x.parquet")
    with pytest.raises(DataError, match=r"^s3://b/x.parquet must not be more than 100 times as large .* needs \d+ MiB"):
        file.read(file.schema_arrow.names)
    for rows in (8192, 50):  # the rows of all pieces count
        with pytest.raises(DataError, match="must not be more than 100 times as large"):
            for _ in file.batches(file.schema_arrow.names, rows):
                pass


def test_what_repeats_itself_moderately_is_read() -> None:
    file = schema.open_parquet(encoded(repeated_text(30)), "x")
    assert file.read(["text"])["text"].to_pylist() == ["x" * 2**20] * 30
    zeros = schema.open_parquet(encoded(wide_vectors(width=2**18)), "x")
    assert zeros.read(["text_feat"]).num_rows == 9


def test_columns_that_are_not_read_do_not_count() -> None:
    table = repeated_text().append_column("label", pa.array([1] * 3000))
    assert schema.open_parquet(encoded(table), "x").read(["label"]).num_rows == 3000


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_texts_come_back_in_their_type(kind: pa.DataType) -> None:
    table = pa.table({"a": pa.array(["x", None, "", "x"], kind)})
    found = schema.open_parquet(encoded(table), "x").read(["a"])["a"]
    assert found.to_pylist() == ["x", None, "", "x"]
    assert found.type == (pa.string() if isinstance(kind, pa.DictionaryType) else kind)


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (2 * 2**30,) * 2)
from ada2i.errors import DataError
from ada2i.importers.published import import_pickle
from ada2i.importers.table import import_table
try:
    if sys.argv[1].endswith(".pkl"):
        import_pickle(sys.argv[1], sys.argv[2], dataset="iemocap")
    else:
        import_table(sys.argv[1], sys.argv[2])
except DataError as problem:
    print("refused:", problem)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["text.parquet", "wide.parquet", *(f"{kind}.pkl" for kind in ("quoted", "escaped", "large", "strings"))]
)
def test_bombs_under_a_limit_of_two_gib(tmp_path: Path, name: str) -> None:
    table = pa.table({column: pa.array(values) for column, values in corpus().items()})
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 8, pa.int32()), pa.array(["x" * 2**28]))
    contents = {
        "text.parquet": lambda: encoded(table.append_column("text", text)),
        "wide.parquet": lambda: encoded(table.append_column("visual_feat", wide_vectors(8, 2**25)["text_feat"])),
        "quoted.pkl": lambda: b"S'" + b"a" * 40_000_000 + b"'\n.",
        "escaped.pkl": lambda: b"S'" + rb"\x41" * 8_000_000 + b"'\n.",
        "large.pkl": lambda: pickle.dumps({"a": "x" * 150_000_000}, protocol=4),  # its budget is above the limit
        "strings.pkl": lambda: pickle.dumps([str(number) for number in range(4_000_000)], protocol=0),
    }
    (tmp_path / name).write_bytes(contents[name]())
    command = [sys.executable, "-c", LIMITED, str(tmp_path / name), str(tmp_path / "root")]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.stdout.startswith("refused:"), found.stdout + found.stderr
    assert "Traceback" not in found.stderr
