"""The same table in every format, written by other libraries, gives the same feature set; other formats are refused."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather, ipc

from ada2i.audit.audit import audit
from ada2i.data.manifest import FeatureSet, open_features, read_shard
from ada2i.errors import DataError
from ada2i.importers import formats
from ada2i.importers.join import import_joined
from ada2i.importers.table import import_table
from ada2i.prediction.source import Table
from tests.unit.data.tables import Columns, corpus, write, written

Write = Callable[[Path, Columns], Path]

HEAD = b"dialogue_id,utterance_index,label,split,text_feat\n"
LENGTHS = (("train", 2), ("train", 3), ("train", 1), ("dev", 1), ("test", 2))


def table() -> Columns:
    """A table whose ids and texts are hard to keep: zeros in front, more than 53 bits, separators and quotes."""
    columns = corpus(LENGTHS)
    names = ["007", "12345678901234567890", "2026-03-31", "1e5", "a,b"]
    columns["dialogue_id"] = [names[int(name[1:])] for name in columns["dialogue_id"]]
    columns["label"] = [("007", "joy")[label] for label in columns["label"]]
    columns["speaker"] = ["01", None, "Ann", "01", "NA", "null", "nan", "1.0", "Bo"]
    columns["text"] = ['She said "no",', "then\nleft; twice.", None, "[1]", "5", "ü 五", "2026-03-31", "x", "y"]
    columns["audio_feat"] = [None, *([0.1 * row, -1e-7] for row in range(1, 9))]
    return columns


def frame(columns: Columns) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})


def pandas_csv(path: Path, columns: Columns) -> Path:
    frame(columns).to_csv(path.with_suffix(".csv"), index=False)
    return path.with_suffix(".csv")


def semicolon_csv(path: Path, columns: Columns) -> Path:
    frame(columns).to_csv(path.with_suffix(".csv"), index=False, sep=";", encoding="utf-8-sig")
    return path.with_suffix(".csv")


def plain_csv(path: Path, columns: Columns) -> Path:
    """By the module csv, all cells quoted, vectors as numbers between blanks."""
    shown = {n: [" ".join(map(str, v)) if isinstance(v, list) else v for v in vs] for n, vs in columns.items()}
    with path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerows([list(shown), *zip(*shown.values(), strict=True)])
    return path.with_suffix(".csv")


def pandas_jsonl(path: Path, columns: Columns) -> Path:
    frame(columns).to_json(path.with_suffix(".jsonl"), orient="records", lines=True, double_precision=15)
    return path.with_suffix(".jsonl")


def json_lines(path: Path, columns: Columns) -> Path:
    """By the module json, without the keys of absent values, with a blank line."""
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    lines = [json.dumps({k: v for k, v in row.items() if v is not None}) for row in rows]
    path.with_suffix(".ndjson").write_text("\n".join([*lines[:3], "", *lines[3:]]))
    return path.with_suffix(".ndjson")


def polars_ndjson(path: Path, columns: Columns) -> Path:
    pl.DataFrame(columns).write_ndjson(path.with_suffix(".ndjson"))
    return path.with_suffix(".ndjson")


def pandas_feather(path: Path, columns: Columns) -> Path:
    pd.DataFrame(columns).to_feather(path.with_suffix(".feather"))
    return path.with_suffix(".feather")


def polars_arrow(path: Path, columns: Columns) -> Path:
    pl.DataFrame(columns).write_ipc(path.with_suffix(".arrow"), compression="zstd")
    return path.with_suffix(".arrow")


def polars_stream(path: Path, columns: Columns) -> Path:
    categories = pl.DataFrame(columns).with_columns(pl.col("dialogue_id").cast(pl.Categorical))
    categories.write_ipc_stream(path.with_suffix(".arrow"))
    return path.with_suffix(".arrow")


def saved_dataset(path: Path, columns: Columns) -> Path:
    import datasets

    datasets.Dataset.from_dict(columns).save_to_disk(str(path))
    (path / "cache-0123456789abcdef.arrow").write_bytes(b"of an earlier map")
    return path


def saved_splits(path: Path, columns: Columns) -> Path:
    import datasets

    parts = {{"dev": "validation"}.get(split, split): rows for split, rows in by_split(columns).items()}
    datasets.DatasetDict({name: datasets.Dataset.from_dict(rows) for name, rows in parts.items()}).save_to_disk(
        str(path)
    )
    return path


def hub_layout(path: Path, columns: Columns) -> Path:
    (path / "data").mkdir(parents=True)
    (path / "README.md").write_text("# A dataset\n")
    for split, rows in by_split(columns).items():
        name = {"dev": "validation"}.get(split, split)
        half = len(rows["label"]) // 2 if split == "train" else len(rows["label"])
        parts = [{n: v[:half] for n, v in rows.items()}, {n: v[half:] for n, v in rows.items()}]
        for number, part in enumerate(parts[: 2 if split == "train" else 1]):
            pl.DataFrame(part).write_parquet(path / "data" / f"{name}-{number:05d}-of-00002.parquet")
    return path


def hub_csv(path: Path, columns: Columns) -> Path:
    path.mkdir(parents=True)
    for split, rows in by_split(columns).items():
        frame(rows).to_csv(path / f"{split}.csv", index=False)
    return path


def by_split(columns: Columns) -> dict[str, Columns]:
    splits = list(dict.fromkeys(columns["split"]))
    return {
        split: {
            name: [value for value, held in zip(values, columns["split"], strict=True) if held == split]
            for name, values in columns.items()
            if name != "split"
        }
        for split in splits
    }


WRITERS: list[Write] = [
    pandas_csv,
    semicolon_csv,
    plain_csv,
    pandas_jsonl,
    json_lines,
    polars_ndjson,
    pandas_feather,
    polars_arrow,
    polars_stream,
    saved_dataset,
    saved_splits,
    hub_layout,
    hub_csv,
]


def imported(source: Path, root: Path, **options: Any) -> FeatureSet:
    return open_features(import_table(str(source), str(root), **options))


def refused(tmp_path: Path, source: Path, message: str) -> DataError:
    with pytest.raises(DataError, match=message) as caught:
        import_table(str(source), str(tmp_path / "root"))
    assert written(tmp_path / "root") == []
    return caught.value


@pytest.mark.parametrize("save", WRITERS)
def test_every_format_gives_the_same_set(tmp_path: Path, save: Write) -> None:
    plain = imported(write(tmp_path / "mine.parquet", table()), tmp_path / "root")
    (tmp_path / "other").mkdir()
    source = save(tmp_path / "other" / "mine", table())
    assert imported(source, tmp_path / "root").uri == plain.uri
    assert plain.manifest.labels == ("007", "joy")
    assert audit(str(source)).null_keys == {}


@pytest.mark.parametrize("save", [pandas_csv, json_lines, polars_arrow, saved_splits, hub_layout])
def test_every_format_serves_predictions_and_joins(tmp_path: Path, save: Write) -> None:
    base = write(tmp_path / "mine.parquet", table())
    (tmp_path / "other").mkdir()
    source = save(tmp_path / "other" / "mine", table())
    found = [
        Table(str(place), "test").stage((tmp_path / name).as_uri(), {"text": 3}, ("007", "joy"), "m@1")
        for name, place in (("a", base), ("b", source))
    ]
    assert [shard.sha256 for shard in found[0]] == [shard.sha256 for shard in found[1]]
    joined = [import_joined(str(base), str(tmp_path / "root"), tables={"text": str(place)}) for place in (base, source)]
    assert joined[0] == joined[1]


@pytest.mark.parametrize("save", [pandas_csv, json_lines])
def test_large_files_are_read_in_pieces(tmp_path: Path, save: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "_PIECE", 400)
    test_every_format_gives_the_same_set(tmp_path, save)


def test_columns_of_json_lines_may_begin_late_and_change_from_whole_numbers(tmp_path: Path) -> None:
    columns = table() | {"label": [None, *([0, 1.0] * 4)], "audio_feat": [None] * 7 + [[1, 2], [0.5, 3.0]]}
    (tmp_path / "other").mkdir()
    plain = imported(write(tmp_path / "mine.parquet", columns, {"label": pa.float64()}), tmp_path / "root")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats, "_PIECE", 200)
        assert imported(json_lines(tmp_path / "other" / "mine", columns), tmp_path / "root").uri == plain.uri


def test_integers_and_bare_names_in_csv(tmp_path: Path) -> None:
    columns = corpus(LENGTHS)
    columns["dialogue_id"] = [2**62 + int(name[1:]) for name in columns["dialogue_id"]]
    (tmp_path / "other").mkdir()
    plain = imported(write(tmp_path / "mine.parquet", columns), tmp_path / "root")
    bare = {name.removesuffix("_feat"): values for name, values in columns.items()} | {"visual": ["a.mp4"] * 9}
    assert imported(pandas_csv(tmp_path / "other" / "mine", bare), tmp_path / "root").uri == plain.uri
    assert plain.manifest.labels == ("0", "1")


@pytest.mark.parametrize(
    "cell",
    [
        "[0.5, -1.0, 2.0]",
        "0.5 -1.0 2.0",
        "0.5,-1,2",
        "0.5; -1.0; 2e0",
        "(0.5, -1.0, 2.0)",
        "[ 0.5\n -1.   2. ]",
        "[np.float32(0.5), np.float32(-1.0), np.float64(2.0)]",
    ],
)
def test_a_vector_in_a_cell(tmp_path: Path, cell: str) -> None:
    columns = corpus(LENGTHS) | {"text_feat": [cell] * 9}
    features = imported(pandas_csv(tmp_path / "mine", columns), tmp_path / "root")
    assert read_shard(features, features.manifest.shards[0])["text_feat"].to_pylist()[0] == [0.5, -1.0, 2.0]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("[0.5, x]", r"`text_feat` of .* must hold a JSON list or numbers .*, but row 4 holds '\[0\.5, x\]'"),
        ("[0.5 ... 2.0]", r"row 4 holds '\[0\.5 \.\.\. 2\.0\]'\. .*write `list\(vector\)`"),
        ("0,5;-1,0;2,0", r"must hold numbers with points for decimals, .* row 4 holds '0,5;-1,0;2,0'"),
        ("[0,5 -1,0 2,0]", r"must hold numbers with points for decimals"),
        ("0,5, -1,0, 2,0", r"must hold numbers with points for decimals"),
        ("[-1,44\n 0,48]", r"must hold numbers with points for decimals"),
        ("[0.5, -1.0]", r"hold vectors of one width, .*row 4 .* has width 2"),
        ("[]", r"hold vectors of one width, .*row 4 .* has width 0"),
        ("[0.5, NaN, 1]", r"must hold finite float32 numbers, but row 4 .* holds nan at position 1"),
    ],
)
def test_a_bad_vector_in_a_cell(tmp_path: Path, cell: str, message: str) -> None:
    columns = corpus(LENGTHS) | {"text_feat": ["[0.5, -1, 2]"] * 4 + [cell] + ["[0.5, -1, 2]"] * 4}
    problem = refused(tmp_path, pandas_csv(tmp_path / "mine", columns), message)
    assert (problem.context["row"], problem.context["field"]) == (4, "text_feat")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.csv", b"", r"must be valid CSV .*: it is empty"),
        ("x.csv", b"a,b\n", r"must hold at least one utterance, but has no row"),
        (
            "x.csv",
            b"a,b\n1,2\n3\n",
            r"must be valid CSV .* same number .*row 1: Expected 2 columns, got 1: 3",
        ),
        ("x.csv", b"dialogue_id,b\n\xff,2\n", r"must be valid CSV in UTF-8 .*: .*invalid UTF8"),
        (
            "x.csv",
            b"dialogue_id,utterance_index,label,split,text_feat\nd,x,a,train,1\n",
            r"integers, but row 0 holds 'x'",
        ),
        ("x.jsonl", b'[{"dialogue_id": "a"}]', r"but holds an array\. .*pandas\.read_json\('x\.jsonl', dtype=False\)"),
        ("x.jsonl", b'{"a": 1}\n{"a": "b"}\n', r"must be valid JSON lines .* one type .*changed .* in row 1"),
        ("x.jsonl", b'{"a": 1}\n{"a": \n', r"must be valid JSON lines .* in row 1"),
        ("x.ndjson", b"5\n", r"must be valid JSON lines"),
        ("x.arrow", b"ARROW1\0\0nothing", r"must be valid Arrow, but cannot be read"),
        ("x.feather", b"FEA1 and more", r"it is Feather of version 1"),
        ("x.xlsx", b"PK\3\4", r"`pandas\.read_excel\('x\.xlsx'\)\.to_parquet\('x\.parquet'\)`"),
        ("x.pkl", b"\x80\4", r"read_pickle\('x\.pkl'\)\.to_parquet\('x\.parquet'\)` if you trust the file"),
        ("x.csv.gz", b"\x1f\x8b", r"`pandas\.read_csv\('x\.csv\.gz', .*\)\.to_parquet\('x\.parquet'\)`"),
        ("x.npz", b"PK\3\4", r"numpy\.load\('x\.npz'\)\.items\(\)}\)\.to_parquet\('x\.parquet'\)`"),
        ("x.sqlite", b"SQLite format 3", r"sqlite3\.connect\('x\.sqlite'\)\)\.to_parquet\('x\.parquet'\)`"),
        ("x.json", b"[]", r"`pandas\.read_json\('x\.json', dtype=False\)\.to_parquet\('x\.parquet'\)`"),
        ("x.tsv", b"a\tb", r"`pandas\.read_csv\('x\.tsv', sep='\\t', .*\)\.to_parquet\('x\.parquet'\)`"),
        ("x.mat", b"MATLAB", r"must be a table \(\.parquet, .*\), but its name ends otherwise\. Convert it"),
    ],
)
def test_other_and_damaged_files_are_refused(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(data)
    refused(tmp_path, tmp_path / "in" / name, message)
    if name.endswith((".xlsx", ".sqlite", ".csv.gz")):
        refused(tmp_path, tmp_path / "in", rf"/in must be a file .*{message}")


def test_one_folder_holds_one_format(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.parquet", corpus())
    pandas_csv(tmp_path / "in" / "b", corpus())
    refused(tmp_path, tmp_path / "in", r"/in must hold tables of one format, but holds Parquet .*CSV .*b\.csv")
    (tmp_path / "in" / "b.csv").rename(tmp_path / "in" / "_b.csv")
    assert imported(tmp_path / "in", tmp_path / "root").manifest.dataset == "in"


def test_a_parquet_file_of_another_name_is_read(tmp_path: Path) -> None:
    plain = imported(write(tmp_path / "mine.parquet", corpus()), tmp_path / "root")
    assert imported((tmp_path / "mine.parquet").rename(tmp_path / "mine"), tmp_path / "root").uri == plain.uri


def test_a_saved_dataset_that_lacks_a_listed_file(tmp_path: Path) -> None:
    source = saved_dataset(tmp_path / "mine", corpus())
    (source / "data-00000-of-00001.arrow").unlink()
    refused(tmp_path, source, r"data-00000-of-00001\.arrow must exist, because .*state\.json lists it")


def test_class_names_that_datasets_records(tmp_path: Path) -> None:
    import datasets

    kinds = datasets.Features({"label": datasets.ClassLabel(names=["calm", "cross", "sad"])})
    part = datasets.Dataset.from_dict({"label": corpus()["label"]}, features=kinds)
    rest = datasets.Dataset.from_dict({n: v for n, v in corpus().items() if n != "label"})
    datasets.concatenate_datasets([part, rest], axis=1).save_to_disk(str(tmp_path / "mine"))
    assert imported(tmp_path / "mine", tmp_path / "root").manifest.labels == ("calm", "cross", "sad")


@pytest.mark.parametrize("save", [pandas_csv, json_lines, polars_arrow])
def test_times_as_text(tmp_path: Path, save: Write) -> None:
    lengths = [*[("train", 1)] * 20, ("test", 2)]
    days = [f"2026-03-{1 + row:02}" for row in range(22)]
    (tmp_path / "other").mkdir()
    plain = corpus(lengths) | {"recorded_at": pd.to_datetime(days).to_list()}
    iso = corpus(lengths) | {"recorded_at": [f"{day}T00:00:00Z" for day in days]}
    features = imported(write(tmp_path / "mine.parquet", plain), tmp_path / "root")
    assert features.manifest.splits["gate"].dialogues == 2
    assert imported(save(tmp_path / "other" / "mine", iso), tmp_path / "root").uri == features.uri


def test_arrow_that_is_far_larger_in_memory_is_refused(tmp_path: Path) -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 3000, pa.int32()), pa.array(["x" * 2**20]))
    feather.write_feather(
        pa.table(
            {
                "dialogue_id": texts,
                "utterance_index": range(3000),
                "label": ["a"] * 3000,
                "split": ["train"] * 3000,
                "text_feat": [[1.0]] * 3000,
            }
        ),
        str(tmp_path / "x.arrow"),
    )
    refused(tmp_path, tmp_path / "x.arrow", "must not be more than 100 times as large in memory")
    zeros = pa.table({name: pa.array(values) for name, values in corpus().items()})
    wide: Any = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(8 * 2**24, np.float64)), 2**24)
    with ipc.new_file(
        str(tmp_path / "y.arrow"),
        zeros.append_column("visual_feat", wide).schema,
        options=ipc.IpcWriteOptions(compression="zstd"),
    ) as out:
        out.write_table(zeros.append_column("visual_feat", wide))
    refused(tmp_path, tmp_path / "y.arrow", "must not be more than 100 times as large in memory")
    assert pq  # the reference format


def test_rows_are_numbered_over_all_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "_PIECE", 60)
    good = b'd0,0,a,train,"1\n2"\n' * 20
    (tmp_path / "x.csv").write_bytes(HEAD + good + b"d0,0,a\n" + good)
    refused(tmp_path, tmp_path / "x.csv", r"row 20: Expected 5 columns, got 3")
    (tmp_path / "y.csv").write_bytes(HEAD + good + b"d0,0,a,train,x\n" + good)
    refused(tmp_path, tmp_path / "y.csv", r"`text_feat` of .* row 20 holds 'x'")
    (tmp_path / "z.jsonl").write_bytes(b'{"a": 1}\n' * 20 + b"{\n")
    refused(tmp_path, tmp_path / "z.jsonl", r"in row 20")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (r"\ud83d", "\ufffd"),
        (r"\uDE00 after", "\ufffd after"),
        (r"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        (r"\\ud83d \u00e9", "\\ud83d é"),
    ],
)
def test_half_a_character_of_json_lines_is_replaced(tmp_path: Path, written: str, read: str) -> None:
    rows = [json.loads(line) for line in pandas_jsonl(tmp_path / "mine", corpus(LENGTHS)).read_text().splitlines()]
    lines = [json.dumps(row | {"text": "MARK" if place == 1 else "plain"}) for place, row in enumerate(rows)]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines).replace("MARK", written) + "\n")
    found = imported(tmp_path / "mine.jsonl", tmp_path / "store")
    texts = {text for shard in found.manifest.shards for text in read_shard(found, shard)["text"].to_pylist()}
    assert texts == {"plain", read}
