from pathlib import Path

import pytest

from ada2i.errors import DataError
from ada2i.extraction.corpora.mosei import read_mosei
from ada2i.extraction.utterance import MISSING_CLIP, Clip
from tests.unit.data.tables import Columns, write
from tests.unit.extraction.corpora.trees import by_id, in_memory, planted

MOSI: dict[str, str] = {
    "Raw/Transcript/Segmented/a_b.annotprocessed": "1_DELIM_IT WAS GOOD\n2_DELIM_NOT A_DELIM_B\n\n3_DELIM_NO LABEL\n",
    "Raw/Audio/WAV_16000/Segmented/a_b_1.wav": "",
    "Raw/Audio/WAV_16000/Full/a_b.wav": "",
    "Raw/Video/Segmented/a_b_1.mp4": "",
    "label.csv": "video_id,clip_id,text,label,mode\na_b,2,x,-1.2,train\na_b,1,x,2.4,train\nc,7,x,0,valid\n",
}
MOSEI: dict[str, str] = {
    "Raw/Transcript/Segmented/Combined/-x.txt": "-x___0___5.5___9.25___Later.\n-x___1___0.0___5.5___First___it.\n",
    "Raw/Audio/Full/WAV_16000/-x.wav": "",
    "Raw/Videos/Segmented/Combined/-x_1.mp4": "",
    "Raw/Videos/Full/Combined/-x.mp4": "",
    "labels.csv": "video_id,segment,sentiment_score,split\n-x,0,-0.33,test\n-x,1,2.6667,test\n",
}


def test_mosi(tmp_path: Path) -> None:
    corpus = read_mosei(planted(tmp_path, MOSI), dataset="cmu-mosi-2")
    found = by_id(corpus)
    assert {key: (item.utterance_index, item.label, item.text) for key, item in found.items()} == {
        ("train", "a_b_1"): (0, "non-negative", "IT WAS GOOD"),
        ("train", "a_b_2"): (1, "negative", "NOT A_DELIM_B"),
        ("dev", "c_7"): (0, "non-negative", None),
    }
    first, second = found["train", "a_b_1"], found["train", "a_b_2"]
    assert first.audio is not None
    assert first.audio.uri.endswith("Segmented/a_b_1.wav")
    assert first.notes == ()
    assert (second.audio, second.video, second.notes) == (None, None, (MISSING_CLIP,))  # no times for the whole file
    assert corpus.problems[0] == "1 transcribed segments have no label and are left out."
    assert (corpus.name, corpus.labels) == ("cmu-mosi-2", ("negative", "non-negative"))


def test_mosei_orders_by_time_and_cuts_whole_files() -> None:
    corpus = read_mosei(in_memory("mosei", MOSEI), dataset="cmu-mosei-7")
    raw = "memory:///mosei/Raw"
    first, second = corpus.utterances
    assert (first.utterance_id, first.label, first.text) == ("-x_1", "Strong Positive", "First___it.")
    assert (second.utterance_id, second.label, second.text) == ("-x_0", "Neutral", "Later.")
    assert first.audio == Clip(f"{raw}/Audio/Full/WAV_16000/-x.wav", 0.0, 5.5)
    assert first.video == Clip(f"{raw}/Videos/Segmented/Combined/-x_1.mp4")
    assert second.video == Clip(f"{raw}/Videos/Full/Combined/-x.mp4", 5.5, 9.25)


@pytest.mark.parametrize(
    ("score", "name"),
    [
        (-3, "Strong Negative"),
        (-2.4, "Negative"),
        (-1, "Weak Negative"),
        (-0.4, "Neutral"),
        (0.5, "Neutral"),
        (0.6, "Weak Positive"),
        (1.8, "Positive"),
        (3, "Strong Positive"),
    ],
)
def test_seven_classes(tmp_path: Path, score: float, name: str) -> None:
    table = f"video_id,segment,sentiment_score,split\n-x,0,{score},test\n"
    corpus = read_mosei(planted(tmp_path, MOSEI | {"labels.csv": table}), dataset="cmu-mosei-7")
    assert [item.label for item in corpus.utterances] == [name]
    assert name in corpus.labels


def test_labels_as_parquet(tmp_path: Path) -> None:
    folder = planted(tmp_path, {name: data for name, data in MOSEI.items() if name != "labels.csv"})
    columns: Columns = {"dialogue_id": ["-x"], "segment": [1], "sentiment_score": [-2.0], "split": ["val"]}
    write(tmp_path / "labels.parquet", columns)
    assert by_id(read_mosei(folder, dataset="cmu-mosei-2"))["dev", "-x_1"].label == "negative"


def refused(tmp_path: Path, message: str, **changes: str | None) -> None:
    files = {name: data for name, data in MOSEI.items() if name != "labels.csv" or "labels" not in changes}
    if changes.get("labels"):
        files["labels.csv"] = f"video_id,segment,sentiment_score,split\n{changes['labels']}"
    if changes.get("transcript"):
        files["Raw/Transcript/Segmented/Combined/-x.txt"] = str(changes["transcript"])
    with pytest.raises(DataError, match=message):
        read_mosei(planted(tmp_path, files), dataset="cmu-mosei-2")


def test_what_is_not_mosei(tmp_path: Path) -> None:
    refused(tmp_path / "a", "must hold a table of labels, one of labels.parquet, labels.csv, label.csv", labels=None)
    refused(tmp_path / "b", "must lie between -3 and 3, but row 0 .* holds 3.5", labels="-x,0,3.5,test\n")
    refused(tmp_path / "c", "`segment` .* row 1 .* repeats that of row 0", labels="-x,0,1,test\n-x,0,2,test\n")
    refused(tmp_path / "d", "`split` .* must hold one of .* holds 'all'", labels="-x,0,1,all\n")
    refused(tmp_path / "e", "`sentiment_score` .* must hold a value in every row", labels="-x,0,,test\n")
    refused(tmp_path / "f", r"Line 1 of .* must be like `<video>___<segment>", transcript="-x___0___later\n")
    with pytest.raises(DataError, match="Raw/Audio and Raw/Videos as the SDK releases them, but does not"):
        read_mosei(planted(tmp_path / "g", {"labels.csv": MOSEI["labels.csv"]}), dataset="cmu-mosei-2")
