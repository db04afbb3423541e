import json
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ada2i.errors import DataError
from ada2i.extraction.corpora.tables import NUMBER, TEXT, TIME, WHOLE, Field, read_table
from tests.unit.data.tables import Columns, write

FIELDS = {
    "dialogue_id": Field(TEXT, required=True, spellings=("video",)),
    "utterance_index": Field(WHOLE),
    "score": Field(NUMBER),
}
TIMED = {"dialogue_id": Field(TEXT), "recorded_at": Field(TIME)}
DAY = int(datetime(2026, 3, 31, tzinfo=UTC).timestamp()) * 10**6


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


# --- large integers ---

LARGE = 1234567890123456789


def test_large_integers_keep_every_digit(tmp_path: Path) -> None:
    numbers = [LARGE, LARGE + 1, -LARGE, 2**53 + 1]
    expected = {"dialogue_id": [str(number) for number in numbers], "utterance_index": numbers, "score": [None] * 4}
    lines = "".join(json.dumps({"dialogue_id": n, "utterance_index": n}) + "\n" for n in numbers)
    assert table(tmp_path / "t.jsonl", lines) == expected
    as_csv = "dialogue_id,utterance_index\n" + "".join(f"{number},{number}\n" for number in numbers[:2])
    assert table(tmp_path / "t.csv", as_csv)["utterance_index"] == numbers[:2]
    path = write(tmp_path / "t.parquet", {"dialogue_id": numbers, "utterance_index": numbers})
    assert read_table(path.as_uri(), FIELDS).columns.to_pydict() == expected


def test_ids_of_any_length(tmp_path: Path) -> None:
    number = 10**40 + 7
    assert table(tmp_path / "t.jsonl", json.dumps({"dialogue_id": number}))["dialogue_id"] == [str(number)]
    path = write(tmp_path / "t.parquet", {"dialogue_id": [2**64 - 1]}, {"dialogue_id": pa.uint64()})
    assert read_table(path.as_uri(), FIELDS).columns["dialogue_id"].to_pylist() == [str(2**64 - 1)]


@pytest.mark.parametrize("column", ["dialogue_id", "utterance_index"])
@pytest.mark.parametrize("cell", [float(2**53), -1.5e300, 1e18])
def test_a_large_float_is_refused_by_row(tmp_path: Path, column: str, cell: float) -> None:
    rows: list[dict[str, Any]] = [{"dialogue_id": "a"}, {"dialogue_id": "b"}]
    rows[1][column] = cell
    message = rf"`{column}` of .* row 1 holds .*, and a float of 2\^53 or more stands for several integers\. Correct"
    with pytest.raises(DataError, match=message):
        table(tmp_path / "t.jsonl", "\n".join(map(json.dumps, rows)))
    path = write(tmp_path / "t.parquet", {"dialogue_id": ["a", "b"]} | {column: [None, cell]})
    with pytest.raises(DataError, match=message):
        read_table(path.as_uri(), FIELDS)


def test_a_whole_number_beyond_64_bits_is_refused_by_row(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"`utterance_index` of .* must hold whole numbers, but row 0 holds '9223"):
        table(tmp_path / "t.jsonl", json.dumps({"dialogue_id": "a", "utterance_index": 2**63}))


# --- texts ---


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (r"a\ud83d", "a\ufffd"),
        (r"\ude00b", "\ufffdb"),
        (r"\ud83d\ude00", "\U0001f600"),
        (r"\ud83dx\ude00", "\ufffdx\ufffd"),
    ],
)
def test_half_a_surrogate_pair_is_the_replacement_character(tmp_path: Path, written: str, read: str) -> None:
    assert table(tmp_path / "t.jsonl", f'{{"dialogue_id": "{written}"}}')["dialogue_id"] == [read]


def test_a_text_of_any_length(tmp_path: Path) -> None:
    assert table(tmp_path / "t.csv", f"dialogue_id\n{'a' * 300_000}\n")["dialogue_id"] == ["a" * 300_000]


def test_deep_json_is_refused_by_row(tmp_path: Path) -> None:
    deep = '{"dialogue_id": "a"}\n{"x": ' + "[" * 200_000
    with pytest.raises(DataError, match="must hold a JSON object in each line, but row 1 does not: maximum recursion"):
        table(tmp_path / "t.jsonl", deep)


# --- times ---


def times(path: Path) -> list[int | None]:
    return read_table(path.as_uri(), TIMED).columns["recorded_at"].to_pylist()


def test_times_as_text(tmp_path: Path) -> None:
    written = ["2026-03-31", " 2026-03-31T00:00:00Z ", "2026-03-31 02:00:00.5+02:00", "20260331T000000", "", None]
    expected = [DAY, DAY, DAY + 500_000, DAY, None, None]
    rows = [json.dumps({"dialogue_id": "a", "recorded_at": cell}) for cell in written]
    (tmp_path / "t.jsonl").write_text("\n".join(rows))
    (tmp_path / "t.csv").write_text("dialogue_id,recorded_at\n" + "".join(f'a,"{cell or ""}"\n' for cell in written))
    assert times(tmp_path / "t.jsonl") == times(tmp_path / "t.csv") == expected
    assert times(write(tmp_path / "t.parquet", {"dialogue_id": ["a"] * 6, "recorded_at": written})) == expected


@pytest.mark.parametrize(
    ("cell", "kind"),
    [
        (datetime(2026, 3, 31, 2, tzinfo=timezone(timedelta(hours=2))), pa.timestamp("ns", "Europe/Berlin")),
        (datetime(2026, 3, 31), pa.timestamp("s")),
        (date(2026, 3, 31), pa.date32()),
    ],
)
def test_times_of_parquet(tmp_path: Path, cell: date, kind: pa.DataType) -> None:
    path = write(
        tmp_path / "t.parquet", {"dialogue_id": ["a", "b"], "recorded_at": [cell, None]}, {"recorded_at": kind}
    )
    assert times(path) == [DAY, None]


def test_a_time_after_the_year_9999(tmp_path: Path) -> None:
    columns: Columns = {"dialogue_id": ["a"], "recorded_at": [10**15]}
    assert times(write(tmp_path / "t.parquet", columns, {"recorded_at": pa.timestamp("ms")})) == [10**18]


@pytest.mark.parametrize("cell", ["yesterday", "1712011500112", "2026-02-30", 1767225600, 1.5, True, ["2026-03-31"]])
def test_what_is_no_time_is_refused_by_row(tmp_path: Path, cell: Any) -> None:
    rows = [{"dialogue_id": "a", "recorded_at": each} for each in ("2026-03-31", cell)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match=r"`recorded_at` of .* must hold times such as .*, but row 1 holds "):
        times(tmp_path / "t.jsonl")


# --- columns that are not read ---


def test_columns_that_are_not_read_are_described(tmp_path: Path) -> None:
    row = {"dialogue_id": "a", "utterance_indx": 3, "mood": "calm", "vector": [1.0, 2.0], "more": {}, "flag": True}
    (tmp_path / "t.jsonl").write_text(json.dumps(row))
    expected = {
        "utterance_indx": "numbers; `utterance_index` would be read",
        "mood": "text",
        "vector": "2 numbers a row, looks like vectors",
        "more": "objects",
        "flag": "true or false",
    }
    assert read_table((tmp_path / "t.jsonl").as_uri(), FIELDS).unused == expected
    path = write(tmp_path / "t.parquet", {name: [cell] for name, cell in row.items() if name != "more"})
    found = read_table(path.as_uri(), FIELDS).unused
    assert found == {name: what for name, what in expected.items() if name != "more"} | {"flag": "bool"}
    (tmp_path / "t.csv").write_text("dialogue_id,scores,note\na,,x\nb,1.5,y\n")
    assert read_table((tmp_path / "t.csv").as_uri(), FIELDS).unused == {
        "scores": "numbers; `score` would be read",
        "note": "text",
    }


def test_a_name_of_a_column_that_is_no_unicode(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(r'{"dialogue_id": "a", "x\ud83d": 1}')
    assert read_table((tmp_path / "t.jsonl").as_uri(), FIELDS).unused == {"x?": "numbers"}
