import json
from pathlib import Path
from typing import Any

import pytest

from ada2i.errors import DataError
from ada2i.extraction.corpora.folder import read_folder
from ada2i.extraction.utterance import Clip
from tests.unit.data.tables import write
from tests.unit.extraction.corpora.trees import in_memory, planted

MEDIA: dict[str, str] = {"clips/one.wav": "", "clips/two words.mp4": "", "clips/two.wav": ""}
ROWS: list[dict[str, Any]] = [
    {
        "dialogue_id": "b",
        "speaker": "Ann",
        "label": "glad",
        "split": "train",
        "text": "Hi, you",
        "audio": "clips/one.wav",
    },
    {
        "dialogue_id": "b",
        "speaker": "Bob",
        "label": None,
        "split": "train",
        "text": None,
        "video": "./clips/two words.mp4",
    },
    {"dialogue_id": "a", "speaker": None, "label": "angry", "split": "val", "text": "No", "audio": "clips\\two.wav"},
    {"dialogue_id": "a", "label": "glad", "split": "Test", "text": "Ja \u2019n", "start": 1.5, "end": 2.25},
]
ROWS[3]["audio"] = ROWS[3]["video"] = "clips/two words.mp4"
COLUMNS = ("dialogue_id", "speaker", "label", "split", "text", "audio", "video", "start", "end", "mood")


def csv_of(rows: list[dict[str, Any]], columns: tuple[str, ...] = COLUMNS) -> str:
    def cell(value: Any) -> str:
        return "" if value is None else f'"{value}"'

    lines = [",".join(columns), *(",".join(cell(row.get(name)) for name in columns) for row in rows)]
    return "\ufeff" + "\r\n".join(lines) + "\r\n\r\n"


def json_lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_a_table_with_media(tmp_path: Path) -> None:
    corpus = read_folder(planted(tmp_path / "ours", {"utterances.csv": csv_of(ROWS), **MEDIA}))
    base = (tmp_path / "ours" / "clips").as_uri()
    assert [
        (item.split, item.utterance_id, item.speaker, item.label, item.text, item.audio, item.video)
        for item in corpus.utterances
    ] == [
        ("dev", "a_0", None, "angry", "No", Clip(f"{base}/two.wav"), None),
        ("test", "a_0", None, "glad", "Ja \u2019n", *[Clip(f"{base}/two%20words.mp4", 1.5, 2.25)] * 2),
        ("train", "b_0", "Ann", "glad", "Hi, you", Clip(f"{base}/one.wav"), None),
        ("train", "b_1", "Bob", None, None, None, Clip(f"{base}/two%20words.mp4")),
    ]
    assert (corpus.name, corpus.labels, corpus.licence, corpus.synthetic) == (
        "ours",
        ("angry", "glad"),
        "not stated",
        False,
    )
    assert corpus.problems == (
        "1 of 4 utterances have no text.",
        "1 of 4 utterances have no audio.",
        "2 of 4 utterances have no video.",
        "1 of 4 utterances have no label.",
    )


def test_all_formats_say_the_same(tmp_path: Path) -> None:
    as_csv = read_folder(planted(tmp_path / "x", {"utterances.csv": csv_of(ROWS), **MEDIA}))
    (tmp_path / "x" / "utterances.csv").unlink()
    as_json = read_folder(planted(tmp_path / "x", {"utterances.jsonl": json_lines(ROWS)}))
    (tmp_path / "x" / "utterances.jsonl").unlink()
    write(tmp_path / "x" / "utterances.parquet", {name: [row.get(name) for row in ROWS] for name in COLUMNS})
    as_parquet = read_folder(str(tmp_path / "x"))
    assert as_csv.utterances == as_json.utterances == as_parquet.utterances


def test_any_store_and_any_name_of_the_table() -> None:
    location = in_memory("folder", {"mine.csv": csv_of(ROWS), "other.csv": "x", **MEDIA})
    corpus = read_folder(f"{location}/mine.csv")
    assert corpus.utterances[0].audio == Clip("memory:///folder/clips/two.wav")
    assert corpus.name == "folder"


def test_given_places_and_names(tmp_path: Path) -> None:
    rows = [
        {"dialogue_id": 1, "utterance_index": 1, "utterance_id": "later", "text": "b"},
        {"dialogue_id": 1, "utterance_index": 0.0, "text": "a"},
    ]
    corpus = read_folder(planted(tmp_path, {"utterances.jsonl": json_lines(rows)}))
    assert [(item.dialogue_id, item.utterance_index, item.utterance_id, item.text) for item in corpus.utterances] == [
        ("1", 0, "1_0", "a"),
        ("1", 1, "later", "b"),
    ]
    assert {item.split for item in corpus.utterances} == {""}
    assert corpus.labels == ()


def test_what_a_table_cannot_say(tmp_path: Path) -> None:
    about = {"name": "Ours", "labels": ["glad", "angry", "bored"], "licence": "internal", "synthetic": True}
    files = {"utterances.csv": csv_of(ROWS), "corpus.json": json.dumps(about), **MEDIA}
    corpus = read_folder(planted(tmp_path, files))
    assert (corpus.name, corpus.labels, corpus.licence, corpus.synthetic) == (
        "Ours",
        ("glad", "angry", "bored"),
        "internal",
        True,
    )


def refused(tmp_path: Path, message: str, files: dict[str, str]) -> None:
    with pytest.raises(DataError, match=message):
        read_folder(planted(tmp_path, files))


def changed(row: int, **cells: Any) -> dict[str, str]:
    rows = [dict(line) for line in ROWS]
    rows[row].update(cells)
    return {"utterances.jsonl": json_lines(rows), **MEDIA}


@pytest.mark.parametrize(
    ("message", "row", "cells"),
    [
        (r"`audio` of .*s.jsonl .* row 0 \(dialogue 'b', utterance 0\) names 'x.wav', which", 0, {"audio": "x.wav"}),
        ("`video` of .* names '../clips/one.wav', which does not exist", 1, {"video": "../clips/one.wav"}),
        ("`audio` of .* names '/clips/one.wav', which does not exist", 0, {"audio": "/clips/one.wav"}),
        ("`audio` of .* names 'clips', which does not exist", 0, {"audio": "clips"}),
        ("`split` of .* must hold one of train, dev, .* row 2 holds 'all'", 2, {"split": "all"}),
        ("`split` of .* must hold a value in every row, but row 2 is null", 2, {"split": None}),
        ("`dialogue_id` of .* must hold a value in every row, but row 1 is null", 1, {"dialogue_id": " "}),
        ("`dialogue_id` of .* must hold text or integers, but row 1 holds '1.5'", 1, {"dialogue_id": 1.5}),
        ("`label` of .* must hold text or integers, but row 0 holds 'True'", 0, {"label": True}),
        ("`start` of .* must hold finite numbers, but row 3 holds '00:01'", 3, {"start": "00:01"}),
        ("`start` of .* must hold seconds from the start .* holds -1", 3, {"start": -1}),
        ("`end` of .* must be later than `start`, .* ends at 1.5 s and starts at 1.5 s", 3, {"end": 1.5}),
        ("`utterance_index` of .* must hold a value in every row, but row 1 is null", 0, {"utterance_index": 0}),
        ("`utterance_index` of .* must hold whole numbers, but row 0 holds '0.5'", 0, {"utterance_index": 0.5}),
    ],
)  # fmt: skip
def test_a_wrong_cell_is_named(tmp_path: Path, message: str, row: int, cells: dict[str, Any]) -> None:
    refused(tmp_path, message, changed(row, **cells))


def test_places_and_names_that_repeat(tmp_path: Path) -> None:
    rows = [{"dialogue_id": "a", "utterance_index": place, "text": "x"} for place in (0, 2)]
    refused(tmp_path / "a", "must count 0, 1, 2... .* is where 1 is expected", {"utterances.jsonl": json_lines(rows)})
    rows = [{"dialogue_id": "a", "utterance_id": "n", "text": "x"}] * 2
    refused(tmp_path / "b", "`utterance_id` .* row 1 .* repeats that of row 0", {"utterances.jsonl": json_lines(rows)})


def test_folders_that_hold_no_corpus(tmp_path: Path) -> None:
    refused(tmp_path / "a", "one of utterances.csv, .* but has none. Write it", dict(MEDIA))
    both: dict[str, str] = {"utterances.csv": csv_of(ROWS), "utterances.jsonl": json_lines(ROWS)}
    refused(tmp_path / "b", "has utterances.csv and utterances.jsonl. Remove all but one", both)
    with pytest.raises(DataError, match="must be a table of utterances, but does not exist"):
        read_folder(str(tmp_path / "b" / "mine.csv"))
    with pytest.raises(DataError, match="does not exist or is empty"):
        read_folder(str(tmp_path / "nowhere"))
    empty = json_lines([{"dialogue_id": "a", "label": "x"}])
    refused(tmp_path / "c", "must hold `text`, `audio` or `video` in at least one row", {"utterances.jsonl": empty})


@pytest.mark.parametrize(
    ("about", "message"),
    [
        (
            {"labels": ["glad"]},
            "`label` .* must hold one of the `labels` of corpus.json, glad, .* row 2 .* holds 'angry'",
        ),
        ({"labels": ["a", "a"]}, "at `labels`: Value error, they must be different names"),
        ({"classes": ["a"]}, "and nothing else, but at `classes`"),
    ],
)
def test_a_corpus_json_that_does_not_fit(tmp_path: Path, about: dict[str, Any], message: str) -> None:
    refused(tmp_path, message, {"utterances.csv": csv_of(ROWS), "corpus.json": json.dumps(about), **MEDIA})


# --- folders as they are copied and linked ---


def test_hidden_files_are_no_part_of_a_corpus(tmp_path: Path) -> None:
    hidden = {"._utterances.csv": "x", ".ipynb_checkpoints/utterances.csv": csv_of(ROWS[:1]), "_tmp/clips/one.wav": ""}
    corpus = read_folder(planted(tmp_path, {"utterances.csv": csv_of(ROWS), **MEDIA, **hidden}))
    assert len(corpus.utterances) == 4
    rows = changed(0, audio="_tmp/clips/one.wav")
    refused(tmp_path / "b", "_tmp.*does not exist. Add the file .in no folder whose name begins with", rows | hidden)


def test_media_in_a_linked_folder(tmp_path: Path) -> None:
    planted(tmp_path / "elsewhere", {name.removeprefix("clips/"): "" for name in MEDIA})
    planted(tmp_path / "ours", {"utterances.csv": csv_of(ROWS)})
    (tmp_path / "ours" / "clips").symlink_to(tmp_path / "elsewhere")
    corpus = read_folder(str(tmp_path / "ours"))
    assert corpus.utterances[0].audio == Clip((tmp_path / "ours" / "clips" / "two.wav").as_uri())


def test_times_and_other_columns_reach_the_corpus(tmp_path: Path) -> None:
    rows = [{**line, "recorded_at": "1970-01-01T00:00:01Z" if line["dialogue_id"] == "a" else None} for line in ROWS]
    columns = (*COLUMNS, "recorded_at")
    corpus = read_folder(planted(tmp_path, {"utterances.csv": csv_of(rows, columns), **MEDIA}))
    assert {item.dialogue_id: item.recorded_at for item in corpus.utterances} == {"a": 10**6, "b": None}
    assert corpus.unused == {"mood": "nothing"}


def test_a_corpus_json_that_is_deep_or_no_unicode(tmp_path: Path) -> None:
    for number, about in enumerate(('{"name": ' + "[" * 100_000, '{"name": "\\ud83d"}')):
        files = {"utterances.csv": csv_of(ROWS), "corpus.json": about, **MEDIA}
        refused(tmp_path / str(number), r"corpus\.json must hold `name`", files)
