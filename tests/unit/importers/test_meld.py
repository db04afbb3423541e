import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ada2i.data.manifest import FeatureSet, open_features, read_shard
from ada2i.errors import DataError
from ada2i.importers.meld import import_meld
from tests.unit.data.tables import write, written

HEADER = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID\r\n"
ROWS = {
    "train": [(0, 1, "Hi, you", "Joey", "joy"), (0, 3, "Don\x92t", "Ross", "anger"), (2, 0, "Oh", "Joey", "neutral")],
    "dev": [(0, 1, "Well", "Monica", "fear"), (0, 0, "What?", "All", "surprise")],
    "test": [(0, 0, "No", "Rachel", "disgust"), (0, 5, "Yes", "Ross", "sadness")],
}


def published(folder: Path, rows: dict[str, list[tuple[int, int, str, str, str]]] = ROWS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split, lines in rows.items():
        body = [f'{n},"{text}",{who},{what},x,{d},{u}\r\n' for n, (d, u, text, who, what) in enumerate(lines)]
        (folder / f"{split}_sent_emo.csv").write_bytes((HEADER + "".join(body)).encode())
    return folder


def table(path: Path, keys: list[tuple[str, int, int]], column: str = "text_feat", **metadata: str) -> str:
    columns: dict[str, list[Any]] = {
        "split": [split for split, *_ in keys],
        "Dialogue_ID": [d for _, d, _ in keys],
        "Utterance_ID": [u for *_, u in keys],
        column: [[float(len(split)), d, u] for split, d, u in keys],
    }
    return str(write(path, columns, None, **metadata))


ALL = [(split, d, u) for split, lines in ROWS.items() for d, u, *_ in lines]


def imported(tmp_path: Path, *features: str, folder: Path | None = None) -> FeatureSet:
    return open_features(
        import_meld(str(folder or published(tmp_path / "meld")), str(tmp_path / "root"), features=features)
    )


def rows_of(features: FeatureSet) -> dict[tuple[str, str], dict[str, Any]]:
    found = pa.concat_tables([read_shard(features, entry) for entry in features.manifest.shards])
    return {(row["split"], row["utterance_id"]): row for row in found.to_pylist()}


def refused(tmp_path: Path, message: str, *features: str, folder: Path | None = None) -> None:
    with pytest.raises(DataError, match=message):
        imported(tmp_path, *features, folder=folder)
    assert written(tmp_path / "root") == []


def test_utterances_are_ordered_by_id_and_joined_by_key(tmp_path: Path) -> None:
    features = imported(tmp_path, table(tmp_path / "x.parquet", ALL[::-1], encoder="minilm"))
    found = rows_of(features)
    assert {key: (row["dialogue_id"], row["utterance_index"]) for key, row in found.items()} == {
        ("train", "dia0_utt1"): ("0", 0),
        ("train", "dia0_utt3"): ("0", 1),
        ("train", "dia2_utt0"): ("2", 0),
        ("dev", "dia0_utt0"): ("0", 0),
        ("dev", "dia0_utt1"): ("0", 1),
        ("test", "dia0_utt0"): ("0", 0),
        ("test", "dia0_utt5"): ("0", 1),
    }
    for (split, name), row in found.items():
        assert row["text_feat"] == [len(split), int(row["dialogue_id"]), int(name.rpartition("utt")[2])]
    row = found["train", "dia0_utt3"]
    assert (row["text"], row["speaker"], row["label"]) == ("Don\u2019t", "Ross", 6)
    assert features.manifest.modalities["text"].encoder == "minilm"
    assert (features.manifest.dataset, features.manifest.dev_rule) == ("meld", None)
    assert "; texts repaired: 1; missing vectors: none; zero vectors: none" in features.manifest.source


def test_missing_rows_are_null_and_counted(tmp_path: Path) -> None:
    audio = table(tmp_path / "a.parquet", ALL[2:], "audio_feat")
    features = imported(tmp_path, table(tmp_path / "x.parquet", ALL), audio)
    assert rows_of(features)["train", "dia0_utt1"]["audio_feat"] is None
    assert features.manifest.source.endswith("missing vectors: audio 2; zero vectors: none")


def test_a_table_per_split_whose_name_says_which(tmp_path: Path) -> None:
    folder = tmp_path / "features"
    for split in ROWS:
        keys = [key for key in ALL if key[0] == split]
        columns: dict[str, list[Any]] = {
            "dialogue_id": [d for _, d, _ in keys],
            "utterance_id": [u for *_, u in keys],
            "text_feat": [[float(len(split)), d, u] for split, d, u in keys],
        }
        write(folder / f"meld_{split}_x.parquet", columns)
    whole = imported(tmp_path, table(tmp_path / "x.parquet", ALL))
    assert imported(tmp_path, str(folder)).uri == whole.uri
    write(tmp_path / "x" / "some.parquet", columns)
    refused(
        tmp_path / "x",
        r"must have the column `split`, or a file name with one of the words train, dev and test",
        str(tmp_path / "x" / "some.parquet"),
    )


def test_without_vectors_there_are_transcripts(tmp_path: Path) -> None:
    features = imported(tmp_path)
    assert features.manifest.widths == {}
    assert rows_of(features)["dev", "dia0_utt0"]["text"] == "What?"


def test_tables_that_do_not_fit(tmp_path: Path) -> None:
    twice = table(tmp_path / "t.parquet", [*ALL, ALL[0]])
    refused(tmp_path, r"must name each utterance once, but row 7 .* repeats that of row 0", twice)
    strange = table(tmp_path / "s.parquet", [*ALL, ("train", 0, 2)])
    refused(tmp_path, r"`utterance_id` of .* must name an utterance of .*, but row 7 \(dialogue '0', utt", strange)
    again = table(tmp_path / "a.parquet", ALL[:1])
    refused(tmp_path, "must name each utterance once", table(tmp_path / "x.parquet", ALL), again)


def test_files_that_are_not_melds(tmp_path: Path) -> None:
    refused(tmp_path, "must be one of MELD's three CSVs", folder=tmp_path / "nowhere")
    rows = {**ROWS, "train": [*ROWS["train"], ROWS["train"][0]]}
    refused(tmp_path, r"row 3 .* repeats that of row 0 of", folder=published(tmp_path / "a", rows))
    rows = {**ROWS, "dev": [(0, 0, "x", "y", "rage")]}
    refused(tmp_path, r"must hold a known class, .* holds 'rage'", folder=published(tmp_path / "b", rows))
    folder = published(tmp_path / "c")
    (folder / "dev_sent_emo.csv").write_bytes(HEADER.encode() + b"1,\x92,a,b,c,0,0\r\n")
    refused(tmp_path, "must be UTF-8, as published, but is not at byte", folder=folder)
    (folder / "dev_sent_emo.csv").write_text(HEADER + "1,a,b\r\n")
    refused(tmp_path, "must have a value in each column, but row 0 is cut short", folder=folder)
    (folder / "dev_sent_emo.csv").write_text(HEADER + "1,a,b,joy,d,0,x\r\n")
    refused(tmp_path, "`Utterance_ID` of .* must hold whole numbers, but row 0 holds 'x'", folder=folder)
    (folder / "dev_sent_emo.csv").write_text("a,b\r\n")
    refused(tmp_path, "must have the column `Utterance`, but has only a, b", folder=folder)


@pytest.mark.shared
def test_meld_as_published(tmp_path: Path, shared_data: Path) -> None:
    features = imported(
        tmp_path, str(shared_data / "derived" / "meld_dev_minilm384.parquet"), folder=shared_data / "meld"
    )
    splits = {name: (info.dialogues, info.utterances) for name, info in features.manifest.splits.items()}
    assert splits == {"train": (1038, 9989), "dev": (114, 1109), "test": (280, 2610)}
    assert {name: info.class_counts for name, info in features.manifest.splits.items()} == {
        "train": (4710, 1205, 268, 683, 1743, 271, 1109),
        "dev": (470, 150, 40, 111, 163, 22, 153),
        "test": (1256, 281, 50, 208, 402, 68, 345),
    }
    assert "texts repaired: 0; missing vectors: text 12599" in features.manifest.source
    (shard,) = features.shards("dev")
    rows = read_shard(features, shard)
    assert rows["text_feat"].null_count == 0
    assert np.unique(rows["dialogue_id"].to_numpy()).size == 114
    speakers = {
        split: {name for entry in features.shards(split) for name in read_shard(features, entry)["speaker"].to_pylist()}
        for split in splits
    }
    assert {split: len(names) for split, names in speakers.items()} == {"train": 260, "dev": 47, "test": 100}


def test_keys_that_pandas_made_floats(tmp_path: Path) -> None:
    plain = imported(tmp_path, table(tmp_path / "x.parquet", ALL))
    folder = published(tmp_path / "floats")
    for path in folder.iterdir():
        lines = path.read_text().splitlines()
        changed = [re.sub(r",(\d+),(\d+)$", r",\1.0,\2.0", line) for line in lines]
        path.write_text("\n".join(changed))
    floats = pq.read_table(tmp_path / "x.parquet")
    for name in ("Dialogue_ID", "Utterance_ID"):
        floats = floats.set_column(floats.schema.get_field_index(name), name, floats[name].cast(pa.float64()))
    pq.write_table(floats, tmp_path / "floats.parquet")
    assert imported(tmp_path, str(tmp_path / "floats.parquet"), folder=folder).uri == plain.uri


def test_a_column_of_a_wrong_type_is_named(tmp_path: Path) -> None:
    keys = pa.array([[d] for _, d, _ in ALL])
    rows = pq.read_table(table(tmp_path / "x.parquet", ALL))
    pq.write_table(rows.set_column(1, "Dialogue_ID", keys), tmp_path / "x.parquet")
    refused(tmp_path, r"Column `Dialogue_ID` of .* must hold text or integers, .* list", str(tmp_path / "x.parquet"))


@pytest.mark.parametrize(("place", "message"), [(3, "`label` of .* row 0"), (5, "`dialogue_id` of .* row 0")])
def test_empty_cells_are_absent(tmp_path: Path, place: int, message: str) -> None:
    folder = published(tmp_path / "meld")
    lines = (folder / "dev_sent_emo.csv").read_text().splitlines()
    cells = lines[1].split(",")
    cells[place] = "  "
    (folder / "dev_sent_emo.csv").write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]))
    refused(tmp_path, f"Column {message.partition(' ')[0]} .* must hold a value in every row", folder=folder)


def test_a_text_of_any_length(tmp_path: Path) -> None:
    long = "so long " * 20_000
    rows = {**ROWS, "test": [(0, 0, long, "Rachel", "disgust"), (0, 5, "Yes", "Ross", "sadness")]}
    csv.field_size_limit(131_072)
    features = imported(tmp_path, folder=published(tmp_path / "meld", rows))
    assert rows_of(features)["test", "dia0_utt0"]["text"] == long
