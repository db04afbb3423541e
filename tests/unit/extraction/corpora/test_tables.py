from pathlib import Path

import pyarrow as pa
import pytest

from ada2i.errors import DataError
from ada2i.extraction.corpora.tables import NUMBER, TEXT, WHOLE, Field, read_table
from tests.unit.data.tables import Columns, write

FIELDS = {
    "dialogue_id": Field(TEXT, required=True, spellings=("video",)),
    "utterance_index": Field(WHOLE),
    "score": Field(NUMBER),
}


def table(path: Path, content: str | bytes) -> dict[str, list[object]]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_table(path.as_uri(), FIELDS).columns.to_pydict()


def test_quotes_spaces_and_other_columns(tmp_path: Path) -> None:
    found = table(tmp_path / "t.csv", 'score, video ,x\n 1.5 ,"a, ""b""\nc",y\n\n, z ,"1,2"\n')
    assert found == {"dialogue_id": ['a, "b"\nc', "z"], "utterance_index": [None, None], "score": [1.5, None]}


def test_what_exports_make_of_nulls_and_integers(tmp_path: Path) -> None:
    lines = (
        '{"dialogue_id": 7.0, "utterance_index": 3.0, "score": NaN}\n\n{"dialogue_id": "8", "utterance_index": null}\n'
    )
    found = table(tmp_path / "t.jsonl", lines)
    assert found == {"dialogue_id": ["7", "8"], "utterance_index": [3, None], "score": [None, None]}


def test_parquet_of_any_types(tmp_path: Path) -> None:
    columns: Columns = {"dialogue_id": ["a", "a"], "utterance_index": [0.0, float("nan")], "nested": [[1], [2]]}
    types: dict[str, pa.DataType] = {"dialogue_id": pa.dictionary(pa.int8(), pa.string())}
    path = write(tmp_path / "t.parquet", columns, types)
    assert read_table(path.as_uri(), FIELDS).columns.to_pydict() == {
        "dialogue_id": ["a", "a"],
        "utterance_index": [0, None],
        "score": [None, None],
    }


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "a,b\n1,2\n", r"t.csv must have the column `dialogue_id`, but has only 'a', 'b'"),
        ("t.csv", "", "must have the column `dialogue_id`, but has only none"),
        ("t.csv", "dialogue_id;x\n", "but has only 'dialogue_id;x'"),
        ("t.csv", "dialogue_id,dialogue_id\n1,2\n", "must have one column `dialogue_id`, but has 2"),
        ("t.csv", "dialogue_id,x\n", "must hold at least one row, but holds none"),
        ("t.csv", "dialogue_id,x\n1,2\n1,2,3\n", "must have 2 values in each row, .* but row 1 has 3"),
        ("t.csv", "dialogue_id,x\n1\n", "must have 2 values in each row, .* but row 0 has 1"),
        ("t.csv", 'dialogue_id\n"a\n', "must be valid CSV, but is not: unexpected end of data"),
        ("t.csv", b"dialogue_id\n\xff\n", "must be UTF-8, but is not at byte 12"),
        ("t.csv", "dialogue_id,score\na,1\nb,inf\n", "`score` of .* must hold finite numbers, but row 1 holds 'inf'"),
        ("t.csv", "dialogue_id,utterance_index\na,x\n", "must hold whole numbers, but row 0 holds 'x'"),
        ("t.jsonl", '{"dialogue_id": "a"}\n{"dialogue_id"\n', "a JSON object in each line, but row 1 does not"),
        ("t.jsonl", '["a"]\n', "a JSON object in each line, but row 0 does not: it is a list"),
        ("t.parquet", b"PAR1", "must be a valid Parquet file, but cannot be read"),
    ],
)
def test_damage_is_named(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        table(tmp_path / name, content)


def test_lists_are_no_cells(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"`dialogue_id` of .* must hold text or integers, but row 0 holds '\[1\]'"):
        table(tmp_path / "t.jsonl", '{"dialogue_id": [1]}\n')
